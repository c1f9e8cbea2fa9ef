// JSON as people read it. It works on the text, not on what the text means: 1.0 stays 1.0, and
// 9007199254740993 stays what JSON.parse would round.

const TOKEN = /"(?:[^"\\]|\\.)*"|[[\]{}:,]|[^\s[\]{}:,"]+/g;
const WIDTH = 96; // characters of a line

// Valid JSON in lines: a list or an object that fits stays in one, a long list of numbers fills
// them. `words` are other words for true, false and null.
export function pretty(text, { words = {}, width = WIDTH } = {}) {
  const tokens = text.match(TOKEN) ?? [];
  let at = 0;
  return value(0);

  // `indent`: how far the line that it begins in is moved to the right.
  function value(indent) {
    const token = tokens[at++];
    if (token === "[") return wrapped("[", "]", items("]", indent), indent);
    if (token === "{") return wrapped("{", "}", items("}", indent), indent);
    return words[token] ?? token;
  }
  function items(end, indent) {
    const found = [];
    while (tokens[at] !== end) {
      if (tokens[at] === ",") at += 1;
      const key = end === "}" ? `${tokens[at++]}: ` : "";
      if (key) at += 1; // the colon
      found.push(key + value(indent + 2));
    }
    at += 1;
    return found;
  }
  function wrapped(open, close, parts, indent) {
    const line = open + parts.join(", ") + close;
    if (indent + line.length <= width && !line.includes("\n")) return line;
    const isFlat = open === "[" && parts.every((part) => !/^[[{]/.test(part));
    const lines = isFlat ? filled(parts, width - indent - 2) : parts;
    const start = `\n${" ".repeat(indent + 2)}`;
    return `${open}${start}${lines.join(`,${start}`)}\n${" ".repeat(indent)}${close}`;
  }
}

function filled(parts, width) {
  const lines = [];
  let room = 0;
  for (const part of parts) {
    room -= part.length + 2;
    if (room >= 0 && lines.length) lines[lines.length - 1] += `, ${part}`;
    else {
      lines.push(part);
      room = width - part.length;
    }
  }
  return lines;
}

// The text of the first item of a list: of the first prediction in `{"predictions": [...]}`.
export function first(text, key) {
  const tokens = text.match(TOKEN) ?? [];
  const name = JSON.stringify(key);
  const isKey = (token, at) => token === name && tokens[at + 1] === ":"; // not a model called so
  const start = tokens.findIndex(isKey) + 3; // behind the colon and the [
  let depth = 0;
  for (let at = start; at < tokens.length; at += 1) {
    if (/^[[{]$/.test(tokens[at])) depth += 1;
    if (/^[\]}]$/.test(tokens[at])) depth -= 1;
    if (depth <= 0) return tokens.slice(start, at + 1).join("");
  }
  return "";
}
