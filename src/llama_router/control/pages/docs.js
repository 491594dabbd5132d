"use strict";

// Everything is put into the page as text: names and descriptions may come from strangers' files.

const LONGEST_ANSWER = 200000;
const LONGEST_STREAM_MS = 10000;
const byId = (id) => document.getElementById(id);

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function authorization() {
  const token = byId("token").value.trim();
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function resolved(api, schema, depth = 0) {
  if (!schema || typeof schema !== "object") return schema;
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return depth > 6 ? { $ref: name } : resolved(api, api.components.schemas[name], depth + 1);
  }
  if (Array.isArray(schema)) return schema.map((one) => resolved(api, one, depth));
  const shown = {};
  for (const [key, value] of Object.entries(schema)) {
    if (key !== "title") shown[key] = resolved(api, value, depth);
  }
  return shown;
}

function example(schema) {
  if (!schema) return null;
  if (schema.default !== undefined) return schema.default;
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf) return example(schema.anyOf[0]);
  if (schema.type === "object") {
    const made = {};
    const required = schema.required || [];
    for (const [name, inner] of Object.entries(schema.properties || {})) {
      if (required.includes(name)) made[name] = example(inner);
    }
    return made;
  }
  if (schema.type === "array") return schema.minItems ? [example(schema.items)] : [];
  return { string: "", integer: 0, number: 0, boolean: false }[schema.type] ?? null;
}

function parametersTable(api, parameters) {
  const table = element("table", "");
  for (const one of parameters) {
    const schema = resolved(api, one.schema);
    const kind = schema.type || (schema.anyOf || []).map((part) => part.type).join(" or ");
    const limits = ["minimum", "maximum", "minLength", "maxLength", "enum", "default"]
      .filter((key) => schema[key] !== undefined)
      .map((key) => `${key} ${JSON.stringify(schema[key])}`)
      .join(", ");
    const name = `${one.name}${one.required ? " (required)" : ""}`;
    const text = one.description || schema.description || "";
    const row = [name, one.in, kind, limits, text].map((cell) => element("td", cell));
    table.append(element("tr", "", ...row));
  }
  return table;
}

async function shownAnswer(response, output) {
  const head = [`${response.status} ${response.statusText}`];
  for (const name of ["content-type", "etag", "retry-after", "allow"]) {
    const value = response.headers.get(name);
    if (value) head.push(`${name}: ${value}`);
  }
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const ends = setTimeout(() => reader.cancel(), LONGEST_STREAM_MS);
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
    output.textContent = `${head.join("\n")}\n\n${text}`;
    if (text.length > LONGEST_ANSWER) {
      text = `${text.slice(0, LONGEST_ANSWER)}\n… (the rest is left out)`;
      reader.cancel();
      break;
    }
  }
  clearTimeout(ends);
  try {
    text = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // It is no JSON: shown as it came.
  }
  output.textContent = `${head.join("\n")}\n\n${text}`;
}

function tryIt(api, method, path, operation) {
  const form = element("form", "");
  const fields = [];
  for (const one of operation.parameters || []) {
    const input = element("input", "");
    input.autocomplete = "off";
    form.append(element("label", one.name, input));
    fields.push([one, input]);
  }
  const content = operation.requestBody && operation.requestBody.content["application/json"];
  let body = null;
  if (content) {
    body = element("textarea", "");
    body.value = JSON.stringify(example(resolved(api, content.schema)), null, 2);
    form.append(body);
  }
  const button = element("button", `Send ${method.toUpperCase()}`);
  const output = element("pre", "");
  output.hidden = true;
  form.append(button);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const headers = authorization();
    const query = new URLSearchParams();
    let target = path;
    for (const [one, input] of fields) {
      if (one.in === "path") {
        // Ids hold slashes, which the routes take as they are.
        const value = input.value.split("/").map(encodeURIComponent).join("/");
        target = target.replace(`{${one.name}}`, value);
      } else if (input.value !== "") {
        if (one.in === "query") query.set(one.name, input.value);
        if (one.in === "header") headers[one.name] = input.value;
      }
    }
    if (body) headers["Content-Type"] = "application/json";
    const url = query.size ? `${target}?${query}` : target;
    output.hidden = false;
    output.textContent = "…";
    try {
      const options = { method: method.toUpperCase(), headers };
      if (body) options.body = body.value;
      await shownAnswer(await fetch(url, options), output);
    } catch (error) {
      output.textContent = String(error);
    }
  });
  return element("div", "", form, output);
}

function routeDetails(api, method, path, operation) {
  const summary = element("summary", "");
  const name = element("span", method.toUpperCase());
  name.className = "method";
  const where = element("span", path);
  where.className = "path";
  const what = element("span", operation.summary || "");
  what.className = "what";
  summary.append(name, where, what);
  const details = element("details", "", summary);
  details.dataset.text = `${method} ${path} ${operation.summary || ""}`.toLowerCase();
  details.addEventListener("toggle", () => {
    if (!details.open || details.dataset.filled) return;
    details.dataset.filled = "1";
    if (operation.description) details.append(element("p", operation.description));
    if ((operation.parameters || []).length) {
      details.append(element("h4", "Parameters"), parametersTable(api, operation.parameters));
    }
    for (const [kind, content] of Object.entries((operation.requestBody || {}).content || {})) {
      const schema = JSON.stringify(resolved(api, content.schema), null, 2);
      details.append(element("h4", `Body (${kind})`), element("pre", schema));
    }
    details.append(element("h4", "Answers"));
    for (const [status, answer] of Object.entries(operation.responses)) {
      const inner = element("details", "", element("summary", `${status} ${answer.description}`));
      for (const [kind, content] of Object.entries(answer.content || {})) {
        const schema = JSON.stringify(resolved(api, content.schema), null, 2);
        inner.append(element("p", kind), element("pre", schema));
      }
      details.append(inner);
    }
    details.append(element("h4", "Try it"), tryIt(api, method, path, operation));
  });
  return details;
}

function search() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const details of byId("routes").children) {
    details.hidden = !words.every((word) => details.dataset.text.includes(word));
  }
}

async function load() {
  const message = byId("message");
  try {
    const response = await fetch("/openapi.json", { headers: authorization() });
    if (!response.ok) {
      message.textContent =
        response.status === 401
          ? "The router wants a key: put it in above and press Load."
          : `The description could not be read: ${response.status}`;
      return;
    }
    const api = await response.json();
    byId("version").textContent = api.info.version;
    const routes = [];
    for (const [path, operations] of Object.entries(api.paths).sort()) {
      for (const [method, operation] of Object.entries(operations)) {
        routes.push(routeDetails(api, method, path, operation));
      }
    }
    byId("routes").replaceChildren(...routes);
    message.textContent = "";
    search();
  } catch (error) {
    message.textContent = `The description could not be read: ${error}`;
  }
}

byId("search").addEventListener("input", search);
byId("reload").addEventListener("click", load);
byId("token").addEventListener("keydown", (event) => {
  if (event.key === "Enter") load();
});
load();
