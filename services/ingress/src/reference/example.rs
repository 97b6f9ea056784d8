//! An example of what a schema describes: what the schema itself gives as one, else made up.

use serde_json::{Map, Value, json};

use super::fields::{kind, may_be_null, members, resolve, without_null};

/// No example of the API nests deeper; a schema that holds itself ends here.
const DEEPEST: usize = 8;

/// An example of `schema`, which stands in `document`.
pub(super) fn example(document: &Value, schema: &Value) -> Value {
    at_depth(document, schema, 0)
}

fn at_depth(document: &Value, schema: &Value, depth: usize) -> Value {
    let whole = resolve(document, schema);
    let schema = without_null(document, whole);
    let given = schema["examples"].get(0).or(schema.get("example")).or(schema.get("const")).or(schema.get("default"));
    if let Some(given) = given {
        return given.clone();
    }
    if let Some(first) = schema["enum"].as_array().and_then(|names| names.iter().find(|name| !name.is_null())) {
        return first.clone();
    }
    if depth == DEEPEST {
        return Value::Null;
    }
    let inner = |schema: &Value| at_depth(document, schema, depth + 1);
    match kind(schema) {
        "object" => Value::Object(members(schema).map(|(name, schema)| (name.clone(), inner(schema))).collect()),
        "array" => Value::Array(schema.get("items").map(inner).into_iter().collect()),
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or_else(|| json!(12)),
        "boolean" => json!(false),
        // Any text would say less than that there may be none.
        "string" if may_be_null(whole) && schema.get("format").is_none() => Value::Null,
        "string" => text(document, schema, depth),
        _ => Value::Object(Map::new()),
    }
}

fn text(document: &Value, schema: &Value, depth: usize) -> Value {
    if let Some(content) = schema.get("contentSchema") {
        return json!(at_depth(document, content, depth + 1).to_string());
    }
    json!(match schema["format"].as_str() {
        Some("uuid") => "0197a5c2-6f3e-7d51-9a40-52d0f1c3b7aa",
        Some("date-time") => "2026-01-31T12:34:56.789Z",
        Some("uri") => "https://app.example.com/",
        _ => "text",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_given_or_made_up() {
        let document = json!({"components": {"schemas": {
            "Self": {"type": "object", "properties": {"id": {"type": "string", "format": "uuid"}, "next": {"$ref": "#/components/schemas/Self"}}},
            "Given": {"type": "string", "examples": ["given"]},
        }}});
        let of = |schema: Value| example(&document, &schema);
        assert_eq!(of(json!({"$ref": "#/components/schemas/Given"})), "given");
        assert_eq!(of(json!({"type": ["null", "integer"], "minimum": 3})), 3);
        assert_eq!(of(json!({"enum": [null, "a"]})), "a");
        assert_eq!(of(json!({"type": ["null", "string"]})), Value::Null);
        assert_eq!(of(json!({"oneOf": [{"type": "null"}, {"type": "boolean"}]})), false);
        let list = of(
            json!({"type": "array", "items": {"type": "object", "properties": {"at": {"type": "string", "format": "date-time"}}}}),
        );
        assert_eq!(list, json!([{"at": "2026-01-31T12:34:56.789Z"}]));
        let mut deep = of(json!({"$ref": "#/components/schemas/Self"}));
        for _ in 0..DEEPEST {
            deep = deep["next"].take();
        }
        assert!(deep.is_null());
    }
}
