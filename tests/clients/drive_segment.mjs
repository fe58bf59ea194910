// @segment/analytics-node: URL KEY COUNT
import { Analytics } from "@segment/analytics-node";

const [url, key, count] = process.argv.slice(2);
const analytics = new Analytics({ writeKey: key, host: url, maxRetries: 30, flushAt: 10 });
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
