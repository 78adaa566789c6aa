// Protocol version 1, the binary frames (docs/protocol.md): 16 bytes little-endian, then the payload.
//
//     u8 version | u8 flags | u16 format | u32 sequence | u64 microseconds | payload

import { toFloat32 } from "./pcm.js";

export const VERSION = 1;
export const UPLOAD = 1;
export const END = 2;
export const DROPPED = 4;
export const SILENCE = 8;
const HEADER = 16;
const S16 = 1;
const F32 = 2;

function frame(flags, format, sequence, seconds, payload) {
  const out = new Uint8Array(HEADER + payload.byteLength);
  const view = new DataView(out.buffer);
  view.setUint8(0, VERSION);
  view.setUint8(1, flags);
  view.setUint16(2, format, true);
  view.setUint32(4, sequence, true);
  view.setBigUint64(8, BigInt(Math.max(0, Math.round(seconds * 1e6))), true);
  out.set(new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength), HEADER);
  return out;
}

/** 16-bit samples captured at `seconds` as a frame. */
export function audioFrame(samples, sequence, seconds, dropped) {
  return frame(dropped ? DROPPED : 0, S16, sequence, seconds, samples);
}

/** A piece of a file as a frame. */
export function uploadFrame(bytes, sequence, last) {
  return frame(UPLOAD | (last ? END : 0), 0, sequence, 0, bytes);
}

/** A frame of the server: its number, its capture time in seconds, its flags and its samples as floats. */
export function parseFrame(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < HEADER || view.getUint8(0) !== VERSION) throw new Error("the server sent a frame of another protocol version");
  const flags = view.getUint8(1);
  const format = view.getUint16(2, true);
  let samples;
  if (flags & SILENCE) samples = new Float32Array(view.getUint32(HEADER, true));
  else if (format === S16) samples = toFloat32(new Int16Array(buffer, HEADER));
  else if (format === F32) samples = new Float32Array(buffer.slice(HEADER));
  else throw new Error(`the server sent audio of the format ${format}, 16-bit samples were asked for`);
  return {
    sequence: view.getUint32(4, true),
    captured: Number(view.getBigUint64(8, true)) / 1e6,
    end: Boolean(flags & END),
    dropped: Boolean(flags & DROPPED),
    samples,
  };
}
