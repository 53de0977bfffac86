// Small helpers of all pages. Text goes into the page as text only, so a class called <script> is shown as such.

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function show(...children) {
  document.querySelector("main").replaceChildren(...children);
  window.scrollTo(0, 0);
}

export function tell(text) {
  const notice = document.getElementById("notice");
  notice.textContent = text;
  notice.hidden = !text;
}

export class HttpError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function request(method, url, content, headers = {}) {
  const body = content === undefined ? undefined : JSON.stringify(content);
  const type = body === undefined ? {} : {"Content-Type": "application/json"};
  let response;
  try {
    response = await fetch(url, {method, body, headers: {...type, ...headers}, cache: "no-store"});
  } catch {
    throw new HttpError(0, "The server cannot be reached. Your page is kept: leave it open and try again in a minute.");
  }
  let answer = {};
  try {
    answer = await response.json();
  } catch { /* a proxy answers with a page of its own */ }
  if (!response.ok) throw new HttpError(response.status, answer.error ?? `The server answered ${response.status}. Try again in a minute.`);
  return answer;
}
