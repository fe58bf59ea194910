// @rudderstack/rudder-sdk-node: URL KEY COUNT [SOCKET]
import Analytics from "@rudderstack/rudder-sdk-node";

const [url, key, count, socketPath] = process.argv.slice(2);
const analytics = new (Analytics.default ?? Analytics)(key, { dataPlaneUrl: url, flushAt: 10, maxRetries: 30, gzip: true, axiosConfig: { socketPath } });
const errors = [];
const done = (error) => error && errors.push(error);
const userId = "u1";
analytics.identify({ userId, traits: { email: "jane@example.com" } }, done);
for (let n = 0; n < Number(count); n++) {
  analytics.track({ userId, event: "Product Viewed", properties: { n, price: 79.0, at: "x".repeat(n ? 1000 : 40000) } }, done);
}
analytics.page({ userId, category: "shop", name: "home", properties: { url: "https://example.com/" } }, done);
analytics.screen({ userId, category: "shop", name: "home" }, done);
analytics.group({ userId, groupId: "g1", traits: { name: "group" } }, done);
analytics.alias({ userId, previousId: "a1" }, done);
await analytics.flush();
if (errors.length) {
  console.error(errors.length, "errors, the first:", errors[0]);
  process.exit(1);
}
