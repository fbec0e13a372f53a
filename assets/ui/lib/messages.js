// A code with parameters -> the sentence, by the rules of opensora_demo/messages. Pure.

/**
 * @typedef {{ code: string, params: Record<string, any> }} Message
 * @typedef {Record<string, string>} Catalog code -> template with {name} places
 */

/**
 * @param {Catalog} catalog
 * @param {Message} message
 * @returns {string} the sentence; the code where the catalog has none
 */
export function render(catalog, message) {
  const template = catalog[message.code];
  if (template === undefined) {
    console.error(`no message has the code ${message.code}`);
    return message.code;
  }
  return template.replace(/\{(\w+)\}/g, (place, name) => {
    if (name in message.params) return written(catalog, message.params[name]);
    console.error(`the message ${message.code} lacks ${name}`);
    return place;
  });
}

/**
 * @param {Catalog} catalog
 * @param {any} value text, number, message, or a list of them
 * @returns {string}
 */
function written(catalog, value) {
  if (typeof value === "string") return value;
  if (typeof value === "number") return writtenNumber(value);
  if (!Array.isArray(value)) return render(catalog, value);
  return value.map((part) => written(catalog, part)).join(catalog["join.words"] ?? ", ");
}

/** As a reader expects it: 4294967295, 7, 2.5, 0.00001, never 1e-05. @param {number} value */
export function writtenNumber(value) {
  const short = Number.isInteger(value) ? value : Number(value.toPrecision(6));
  if (Number.isInteger(short)) return BigInt(short).toString();
  const decimals = 5 - Math.floor(Math.log10(Math.abs(short)));
  return short.toFixed(Math.min(decimals, 100)).replace(/\.?0+$/, "");
}
