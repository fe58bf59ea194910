//! PURE. Events to try a mapping out with.

/// What each is called, and its JSON.
pub(super) const EXAMPLES: [(&str, &str); 5] = [
    (
        "Product Viewed",
        r#"{
  "type": "track",
  "event": "Product Viewed",
  "messageId": "example-1",
  "userId": "user-123",
  "properties": {
    "product_id": "SKU-A",
    "name": "Merino Crew Jumper",
    "variant": "navy-m",
    "price": 79.00,
    "currency": "GBP"
  },
  "context": {
    "traits": { "email": "jane.doe@example.com", "tier": "gold" },
    "page": { "url": "https://example.com/products/merino-crew" },
    "consent": { "marketing": true }
  }
}"#,
    ),
    (
        "Order Completed",
        r#"{
  "type": "track",
  "event": "Order Completed",
  "messageId": "example-2",
  "userId": "user-123",
  "properties": {
    "order_id": "10001",
    "total": 123.50,
    "currency": "GBP",
    "products": [
      { "product_id": "SKU-A", "name": "Merino Crew Jumper", "variant": "navy-m", "price": 79.00, "quantity": 1 },
      { "product_id": "SKU-B", "name": "Wool Beanie", "price": 44.50, "quantity": 1 }
    ]
  },
  "context": {
    "traits": { "email": "jane.doe@example.com" },
    "consent": { "marketing": true }
  }
}"#,
    ),
    (
        "A page",
        r#"{
  "type": "page",
  "name": "Home",
  "messageId": "example-3",
  "anonymousId": "a-1",
  "context": {
    "page": { "url": "https://example.com/", "title": "Home" },
    "consent": { "marketing": true }
  }
}"#,
    ),
    (
        "An event of your own",
        r#"{
  "type": "track",
  "event": "Gift Card Opened",
  "messageId": "example-4",
  "userId": "user-123",
  "properties": { "card": { "code": "XMAS-25", "value": 25 } },
  "context": {
    "traits": { "email": "jane.doe@example.com" },
    "consent": { "marketing": true }
  }
}"#,
    ),
    (
        "Consent denied",
        r#"{
  "type": "track",
  "event": "Product Viewed",
  "messageId": "example-5",
  "userId": "user-123",
  "properties": { "product_id": "SKU-A", "price": 79.00 },
  "context": {
    "traits": { "email": "jane.doe@example.com" },
    "consent": { "marketing": false }
  }
}"#,
    ),
];
