// The files are sent without the blanks at the beginning of lines (service/http/pages/modules.py).

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import prettier from "prettier";

const folder = new URL("../../../../service/http/pages/static/", import.meta.url);

for (const name of readdirSync(folder).filter((each) => !each.endsWith(".svg"))) {
  test(`${name} can be formatted as it was from what is sent`, async () => {
    const file = new URL(name, folder);
    const text = readFileSync(file, "utf8");
    const options = { ...(await prettier.resolveConfig(file)), filepath: name };
    assert.equal(await prettier.format(text.replaceAll(/^[ \t]+/gm, ""), options), text);
  });
}
