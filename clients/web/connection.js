// The websocket: hello, one question at a time, audio both ways, and a session that survives a lost connection.

import { VERSION, audioFrame, parseFrame, uploadFrame } from "./frames.js";

const ANSWER_MS = 10_000;
const VOICE_MS = 120_000; // to send a recording and make a voice of it
const KEPT_S = 10; // of sent audio that can be sent again
const DEAF_MS = 5000; // without a word from the server, after which the connection counts as lost
const BEHIND_S = 0.5; // of unsent audio, above which more is left out
const BEHIND_WHOLE_S = 20; // the same where nothing should be
const STOP_MS = 120_000; // until the last sample has come back
const RETRY_MS = [150, 300, 600, 1000];
const PING_MS = 2000;
const PIECE = 32 * 1024; // bytes of an upload in one frame
const QUIET = new Set(["idle"]); // fatal refusals that are no trouble: the next action connects again

/** What the server refused, with its code and its advice. */
export class Refusal extends Error {
  constructor({ code, message, advice }) {
    super(advice ? `${message}. ${advice}` : message);
    this.code = code;
  }
}

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Connection extends EventTarget {
  constructor(url) {
    super();
    this.url = url;
    this.token = null;
    this.socket = null;
    this.session = null;
    this.welcome = null;
    this.turn = Promise.resolve(); // questions are asked one after the other
    this.asked = null;
  }

  emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** Connects and says hello unless that is done; resolves with the server's welcome. */
  open() {
    if (this.socket?.readyState === WebSocket.OPEN && this.welcome) return Promise.resolve(this.welcome);
    this.opening ??= this.connect().finally(() => (this.opening = null));
    return this.opening;
  }

  async connect() {
    this.welcome = null;
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onclose = () => reject(new Error("The server cannot be reached."));
    });
    this.socket = socket;
    socket.onmessage = ({ data }) => {
      this.heard = performance.now();
      if (typeof data === "string") this.message(JSON.parse(data));
      else this.frame(parseFrame(data));
    };
    socket.onclose = () => this.closed(socket);
    const hello = { type: "hello", version: VERSION, client: "rtvc web", capabilities: ["silence", "acknowledge"] };
    this.welcome = await this.ask(this.token ? { ...hello, token: this.token } : hello, "welcome");
    return this.welcome;
  }

  /** Sends a message, and what `more` sends after it; resolves with the answer of the type `wanted` or rejects with a `Refusal`. */
  ask(message, wanted, deadline = ANSWER_MS, more = null) {
    const answer = this.turn.then(() => this.put(message, wanted, deadline, more));
    this.turn = answer.catch(() => {});
    return answer;
  }

  put(message, wanted, deadline, more) {
    return new Promise((resolve, reject) => {
      if (this.socket?.readyState !== WebSocket.OPEN) return reject(new Error("The connection is gone."));
      const late = setTimeout(() => this.settle("reject", new Error("The server does not answer.")), deadline);
      const asked = (this.asked = { wanted, resolve, reject, late });
      this.socket.send(JSON.stringify(message));
      more?.(() => this.asked === asked);
    });
  }

  settle(way, value) {
    const { late, [way]: finish } = this.asked;
    clearTimeout(late);
    this.asked = null;
    finish(value);
  }

  message(message) {
    if (message.type === "stopped") this.stopped(message);
    else if (message.type === this.asked?.wanted) this.settle("resolve", message);
    else if (message.type === "error") {
      const refusal = new Refusal(message);
      if (message.fatal) this.refused = refusal;
      if (this.asked) this.settle("reject", refusal);
      else if (!QUIET.has(refusal.code)) this.emit("refused", refusal);
    } else if (message.type === "draining") this.emit("draining", message.seconds);
  }

  frame(frame) {
    const session = this.session;
    if (!session || frame.sequence < session.received) return; // sent again after a resume, and already here
    session.received = frame.sequence + 1;
    session.complete = frame.end;
    this.emit("audio", frame);
  }

  /** Opens a session; audio may be sent from then on. */
  async start(settings) {
    const started = await this.ask({ type: "start", ...settings }, "started");
    const resumeMs = this.welcome.limits.resume_ms;
    const whole = !settings.max_lag_ms; // nothing may be left out
    this.session = { ...started, resumeMs, whole, sequence: 0, received: 0, sent: [], dropped: false, lostSamples: 0 };
    clearInterval(this.pinging);
    this.pinging = setInterval(() => this.ping(), PING_MS);
    return started;
  }

  /** Lets the server forget what has arrived, and notices when it is no longer heard. */
  ping() {
    const { session, socket } = this;
    if (!session || session.away) return;
    if (performance.now() - this.heard > DEAF_MS) {
      socket.onmessage = socket.onclose = null;
      socket.close();
      this.closed(socket);
    } else this.acknowledge(session.received - (session.complete ? 1 : 0)); // the last frame only once `stopped` has come
  }

  acknowledge(received) {
    this.socket.send(JSON.stringify({ type: "ping", received }));
  }

  /** Seconds of this session that were left out because the network could not take them. */
  get lost() {
    return this.session ? this.session.lostSamples / this.session.sample_rate : 0;
  }

  /** Sends 16-bit samples captured at `captured` seconds and says whether; what the network cannot take in time is left out and marked. */
  send(samples, captured) {
    const session = this.session;
    if (!session || session.stopping) return false;
    const behind = this.socket.bufferedAmount / (2 * session.sample_rate);
    if ((session.away && !session.whole) || behind > (session.whole ? BEHIND_WHOLE_S : BEHIND_S)) {
      session.dropped = true;
      session.lostSamples += samples.length;
      return false;
    }
    const bytes = audioFrame(samples, session.sequence, captured, session.dropped);
    session.dropped = false;
    session.sent.push({ sequence: session.sequence++, captured, bytes });
    while (session.sent[0].captured < captured - KEPT_S) session.sent.shift();
    if (!session.away) this.socket.send(bytes); // otherwise the resumption does
    return true;
  }

  /** No more input: resolves with the totals when every sample has come back, be it over another connection; null if it never will. */
  stop() {
    const session = this.session;
    if (!session) return Promise.resolve(null);
    session.stopping = true;
    return new Promise((resolve) => {
      session.over = resolve;
      session.late = setTimeout(() => this.session === session && this.forget(), STOP_MS);
      if (!session.away) this.sendStop(); // otherwise the resumption does
    });
  }

  sendStop() {
    this.socket.send(JSON.stringify({ type: "stop" }));
  }

  /** Every sample is here: the server need not keep the session any longer. */
  stopped(totals) {
    if (this.session) this.acknowledge(totals.frames_out);
    this.forget(totals);
  }

  forget(totals = null) {
    clearInterval(this.pinging);
    clearTimeout(this.session?.late);
    this.session?.over?.(totals);
    this.session = null;
  }

  /** Sends a recording; resolves with the voice that was made of it. `progress` hears the share that is sent. */
  async upload(name, bytes, progress = () => {}) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const sha256 = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    await this.open();
    const announcement = { type: "upload", name, size: bytes.byteLength, sha256 };
    return this.ask(announcement, "voice", VOICE_MS, (wanted) => this.pieces(bytes, progress, wanted));
  }

  /** Sends a file in pieces, while it is `wanted`, no faster than the network takes them. */
  async pieces(bytes, progress, wanted) {
    for (let at = 0, sequence = 0; at < bytes.byteLength; at += PIECE, sequence++) {
      while (wanted() && this.socket.bufferedAmount > 8 * PIECE) await wait(20);
      if (!wanted()) return;
      this.socket.send(uploadFrame(bytes.subarray(at, at + PIECE), sequence, at + PIECE >= bytes.byteLength));
      progress(Math.min(1, (at + PIECE) / bytes.byteLength));
    }
  }

  closed(socket) {
    if (socket !== this.socket) return;
    if (this.asked) this.settle("reject", this.refused ?? new Error("The connection is gone."));
    const refusal = this.refused;
    this.refused = null;
    this.welcome = null;
    if (this.session && !refusal) this.resume(this.session);
    else {
      if (this.session) this.emit("ended", refusal);
      this.forget();
      this.emit("away", refusal);
    }
  }

  /** Takes a session up again within the time that the server keeps it. */
  async resume(session) {
    if (session.away) return;
    session.away = true;
    this.emit("waiting");
    const until = performance.now() + session.resumeMs;
    for (let attempt = 0; performance.now() < until; attempt++) {
      await wait(RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]);
      if (this.session !== session) return;
      try {
        await this.open();
        const { session: id, key, received } = session;
        const { wanted } = await this.ask({ type: "resume", session: id, key, received }, "resumed");
        for (const { sequence, bytes } of session.sent) if (sequence >= wanted) this.socket.send(bytes);
        if (session.stopping) this.sendStop();
        session.away = false;
        return this.emit("resumed");
      } catch (error) {
        if (error instanceof Refusal) break;
      }
    }
    this.forget();
    this.emit("ended", new Error("The connection was lost for too long. Press Start to speak on."));
    this.emit("away");
  }
}
