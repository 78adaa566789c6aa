// The connection in a thread of its own: neither drawing nor anything else on the page makes audio late.
//
// The page calls methods of `Connection` by message; audio goes between the worklets and the server without touching the page,
// which hears copies for its waveforms and tapes.

import { Connection } from "./connection.js";
import { toInt16 } from "./pcm.js";

const EVENTS = ["waiting", "resumed", "refused", "draining", "ended", "away"];

let connection = null;
let player = null;
let silent = () => {}; // called when the microphone's last block has come
let quiet = Promise.resolve();

/** An error as something that can be posted. */
const plain = (error) => (error instanceof Error ? { message: error.message, code: error.code } : error);

const calls = {
  connect(url) {
    connection = new Connection(url);
    connection.addEventListener("audio", ({ detail }) => hear(detail));
    for (const event of EVENTS) {
      connection.addEventListener(event, ({ detail }) => postMessage({ event, detail: plain(detail) }));
    }
  },
  open(token) {
    connection.token = token;
    return connection.open();
  },
  ask: (message, wanted) => connection.ask(message, wanted),
  start(settings) {
    quiet = new Promise((resolve) => (silent = resolve));
    return connection.start(settings);
  },
  async stop() {
    await quiet; // the last block comes on another way than this call
    return connection.stop();
  },
  upload: (name, bytes) => connection.upload(name, bytes, (share) => postMessage({ event: "progress", detail: share })),
  /** What was left out so far, in seconds, by this end and by the server. */
  async lost() {
    if (!connection.session || connection.session.away) return connection.lost;
    const stats = await connection.ask({ type: "stats" }, "stats");
    return connection.lost + stats.dropped_ms / 1000;
  },
};

function attach(said, heard) {
  player = heard;
  said.onmessage = ({ data }) => (data.done ? silent() : say(data));
}

/** A block of the microphone. */
function say({ samples, captured }) {
  const block = toInt16(samples);
  if (connection.send(block, captured)) postMessage({ event: "said", detail: block }, [block.buffer]);
}

/** A block of the server. */
function hear({ samples, captured }) {
  const copy = samples.slice();
  player?.postMessage({ samples, captured }, [samples.buffer]);
  postMessage({ event: "heard", detail: { samples: copy, captured } }, [copy.buffer]);
}

onmessage = async ({ data }) => {
  if (data.ports) return attach(...data.ports);
  try {
    postMessage({ id: data.id, result: await calls[data.call](...data.given) });
  } catch (error) {
    postMessage({ id: data.id, error: plain(error) });
  }
};
