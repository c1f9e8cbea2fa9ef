// Numbers as people read them.

const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, useGrouping: false });
const GROUPED = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

export const number = (value) =>
  Math.abs(value) >= 1e6 || (value && Math.abs(value) < 1e-4)
    ? value.toExponential(2)
    : NUMBER.format(value);
export const grouped = (value) => (Math.abs(value) < 1e4 ? number(value) : GROUPED.format(value));
export const percent = (share) => `${(100 * share).toFixed(1)} %`;

export function duration(ms) {
  if (ms === null || Number.isNaN(ms)) return "–";
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  if (ms >= 10) return `${ms.toFixed(0)} ms`;
  return `${ms.toFixed(ms >= 1 ? 1 : 2)} ms`;
}

export function bytes(count) {
  if (count < 1000) return `${count} bytes`;
  return count < 1e6 ? `${(count / 1000).toFixed(1)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

// "sepal_length" is "sepal length" to people.
export const words = (name) => name.replaceAll("_", " ");

// "20.77" and "1000 USD" are "20.77 × 1000 USD": side by side they would be two numbers.
export const withUnit = (text, unit) => (unit ? `${text} ${factor(unit)}` : text);
export const factor = (unit) => (/^\d/.test(unit) ? `× ${unit}` : unit);

// A value with as many decimals as the range needs: about a thousand places from end to end.
export function rounded(value, range) {
  if (!(range > 0)) return value;
  const digits = Math.min(12, Math.max(0, Math.ceil(-Math.log10(range / 500))));
  return Number(value.toFixed(digits));
}
