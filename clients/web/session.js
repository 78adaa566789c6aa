// The page's end of the worker: its methods as promises, its events as events.

export class Session extends EventTarget {
  constructor(url) {
    super();
    this.worker = new Worker("session.worker.js", { type: "module" });
    this.waiting = new Map();
    this.calls = 0;
    this.connected = false;
    this.worker.onmessage = ({ data }) => (data.event ? this.tell(data) : this.settle(data));
    this.call("connect", String(url));
  }

  call(name, ...given) {
    const id = this.calls++;
    this.worker.postMessage({ id, call: name, given });
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  settle({ id, result, error }) {
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) reject(Object.assign(new Error(error.message), { code: error.code }));
    else resolve(result);
  }

  tell({ event, detail }) {
    if (event === "away") this.connected = false;
    this.dispatchEvent(new CustomEvent(event, { detail }));
  }

  /** Connects unless that is done; resolves with the server's welcome. */
  async open() {
    const welcome = await this.call("open", sessionStorage.getItem("token"));
    this.connected = true;
    return welcome;
  }

  /** Gives the worker the ports of the worklets. */
  attach(said, heard) {
    this.worker.postMessage({ ports: [said, heard] }, [said, heard]);
  }

  ask = (message, wanted) => this.call("ask", message, wanted);
  start = (settings) => this.call("start", settings);
  stop = () => this.call("stop");
  lost = () => this.call("lost");

  async upload(name, bytes, progress) {
    await this.open();
    const hear = ({ detail }) => progress(detail);
    this.addEventListener("progress", hear);
    try {
      return await this.call("upload", name, bytes);
    } finally {
      this.removeEventListener("progress", hear);
    }
  }
}
