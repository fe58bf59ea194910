// @segment/analytics-node: URL KEY COUNT [SOCKET]
import { request } from "node:http";
import { Analytics } from "@segment/analytics-node";

const [url, key, count, socketPath] = process.argv.slice(2);
// What `fetch` does, over a Unix socket.
const httpClient = (url, { method, headers, body, signal }) =>
  new Promise((resolve, reject) => {
    const sent = request(url, { socketPath, method, headers, signal }, (answer) => {
      const { statusCode: status, statusMessage: statusText } = answer;
      answer.resume();
      answer.on("end", () => resolve({ status, statusText, headers: answer.headers }));
      answer.on("error", reject);
    });
    sent.on("error", reject);
    sent.end(body);
  });
const analytics = new Analytics({ writeKey: key, host: url, maxRetries: 30, flushAt: 10, ...(socketPath && { httpClient }) });
const errors = [];
analytics.on("error", (error) => errors.push(error));
const userId = "u1";
analytics.identify({ userId, traits: { email: "jane@example.com" } });
for (let n = 0; n < Number(count); n++) {
  analytics.track({ userId, event: "Product Viewed", properties: { n, price: 79.0, at: "x".repeat(1000) } });
}
analytics.page({ userId, category: "shop", name: "home", properties: { url: "https://example.com/" } });
analytics.screen({ userId, category: "shop", name: "home" });
analytics.group({ userId, groupId: "g1", traits: { name: "group" } });
analytics.alias({ userId, previousId: "a1" });
await analytics.flush();
await analytics.closeAndFlush();
if (errors.length) {
  console.error(errors.length, "errors, the first:", errors[0]);
  process.exit(1);
}
