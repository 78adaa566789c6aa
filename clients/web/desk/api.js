// The endpoint of `rtvc live`: the token of the address, requests, and the state ten times a second.

const AGAIN_MS = 1000; // between attempts to hear from it

/** Takes the token out of the address, so that it is not in the history or on a shared screen. */
function token() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("token") ?? "";
}

export class Api {
  constructor() {
    this.token = token();
  }

  fetch(path, options = {}) {
    return fetch(path, { ...options, headers: { Authorization: `Bearer ${this.token}` } });
  }

  /** The answer as an object; what was refused is thrown. */
  async ask(path, options) {
    const response = await this.fetch(path, options);
    const found = await response.json();
    if (!response.ok) throw new Error(found.error);
    return found;
  }

  post = (path, body) => this.ask(path, { method: "POST", body });
  change = (fields) => this.post("v1/control", JSON.stringify(fields));

  /** Tells every state to `hear`, and `lost(error)` when there is none; goes on for ever. */
  async listen(hear, lost) {
    for (;;) {
      try {
        const response = await this.fetch("v1/events");
        if (!response.ok) throw new Error((await response.json()).error);
        await this.read(response.body.pipeThrough(new TextDecoderStream()).getReader(), hear);
        lost(null);
      } catch (error) {
        lost(error);
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }

  async read(reader, hear) {
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const rows = (rest + value).split("\n");
      rest = rows.pop();
      if (rows.length) hear(JSON.parse(rows.at(-1)));
    }
  }
}
