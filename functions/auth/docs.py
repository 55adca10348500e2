"""The page at /docs: the OpenAPI document made readable, with forms to try it. Loads nothing from anywhere else."""

from __future__ import annotations

import base64
from hashlib import sha256

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
details { border: 1px solid #8886; border-radius: .4rem; margin: .5rem 0; padding: .4rem .8rem }
summary { cursor: pointer }
summary b { display: inline-block; min-width: 4.5rem }
label { display: block; margin: .4rem 0 }
input { font: inherit; width: 20rem; max-width: 100% }
textarea { font: 14px monospace; width: 100%; min-height: 8rem; box-sizing: border-box }
pre { overflow: auto; background: #8882; padding: .6rem; max-height: 24rem; white-space: pre-wrap }
button { font: inherit; padding: .2rem 1rem }
"""

SCRIPT = """
"use strict";
const make = (tag, props, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};
const token = document.getElementById("token");
const list = document.getElementById("operations");

function example(spec, schema) {
  if (schema.$ref) return example(spec, spec.components.schemas[schema.$ref.split("/").pop()]);
  if (schema.examples) return schema.examples[0];
  const value = {};
  for (const name of schema.required || []) value[name] = "";
  return value;
}

function operation(spec, path, method, op) {
  const fields = [];
  const form = make("form", {});
  for (const parameter of op.parameters || []) {
    const input = make("input", { name: parameter.name, required: parameter.required });
    fields.push([parameter, input]);
    form.append(make("label", {}, parameter.name + " (" + parameter.in + ") ", input));
  }
  let body = null;
  if (op.requestBody) {
    const schema = op.requestBody.content["application/json"].schema;
    body = make("textarea", { value: JSON.stringify(example(spec, schema), null, 2), spellcheck: false });
    body.setAttribute("aria-label", "request body");
    form.append(body);
  }
  const reply = make("pre", { hidden: true });
  form.append(make("button", {}, "Send"), reply);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    let url = path;
    const query = new URLSearchParams();
    for (const [parameter, input] of fields) {
      if (parameter.in === "path") url = url.replace("{" + parameter.name + "}", encodeURIComponent(input.value));
      else if (input.value !== "") query.set(parameter.name, input.value);
    }
    const headers = {};
    if (op.security && token.value) headers["Authorization"] = "Bearer " + token.value;
    if (body) headers["Content-Type"] = "application/json";
    if (String(query)) url += "?" + query;
    reply.hidden = false;
    reply.textContent = "...";
    try {
      const response = await fetch(url, { method: method.toUpperCase(), headers, body: body ? body.value : undefined });
      let text = await response.text();
      if ((response.headers.get("content-type") || "").includes("json")) {
        const value = JSON.parse(text);
        if (value.access_token) token.value = value.access_token;
        text = JSON.stringify(value, null, 2);
      }
      reply.textContent = response.status + " " + response.statusText + "\\n\\n" + text;
    } catch (error) {
      reply.textContent = String(error);
    }
  });
  const statuses = Object.entries(op.responses).map(([status, r]) => status + " " + r.description).join(" · ");
  return make("details", {},
    make("summary", {}, make("b", {}, method.toUpperCase()), path + (op.security ? " (needs a token)" : "")),
    make("p", {}, op.description || op.summary || ""), make("p", {}, make("small", {}, statuses)), form);
}

fetch("openapi.json").then((response) => response.json()).then((spec) => {
  for (const [path, operations] of Object.entries(spec.paths))
    for (const [method, op] of Object.entries(operations)) list.append(operation(spec, path, method, op));
}).catch((error) => { list.textContent = "The API description could not be read: " + error; });
"""

PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Llamabda API</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<h1>Llamabda API</h1>
<p>Register, log in (the token is then filled in here), train, ask.
The machine-readable description is <a href="openapi.json">openapi.json</a>.</p>
<label>Access token <input id="token" type="password" autocomplete="off"></label>
<div id="operations"></div>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


# Only the style and the script above run, and they reach only this server.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src {_source(SCRIPT)}; style-src {_source(STYLE)}; connect-src 'self'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
