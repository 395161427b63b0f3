// @ts-check
// A Web Worker: applies SHA-512 again and again, and says how far it is.
onmessage = async (e) => {
  const { start, steps } = e.data;
  let value = start;
  try {
    for (let i = 0; i < steps; i++) {
      value = await crypto.subtle.digest("SHA-512", value);
      if (i % 4096 === 4095) postMessage({ done: i + 1 });
    }
    postMessage({ done: steps, value: new Uint8Array(value) });
  } catch (err) {
    postMessage({ error: String(err) });
  }
};
