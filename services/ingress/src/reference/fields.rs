//! What a schema's members are, as rows of a table.

use serde_json::Value;

/// One member, however deep.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Its path: `data[].jobId`.
    pub(super) path: String,
    /// What it holds, in a few words.
    pub(super) kind: String,
    /// The names that it may be; all others it may not.
    pub(super) names: Vec<String>,
    /// Whether it is always there.
    pub(super) required: bool,
    /// What it means.
    pub(super) description: String,
}

/// What `schema` stands for in `document`: itself, or what it refers to.
pub(super) fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema["$ref"].as_str().and_then(|pointer| document.pointer(pointer.strip_prefix('#')?));
    target.unwrap_or(schema)
}

/// The alternative that is not null, where null is the other one.
pub(super) fn without_null<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let alternatives = ["oneOf", "anyOf", "allOf"].into_iter().find_map(|word| schema[word].as_array());
    let other = alternatives.and_then(|all| all.iter().find(|schema| schema["type"] != "null"));
    other.map_or(schema, |schema| resolve(document, schema))
}

/// Whether null is one of the alternatives.
pub(super) fn may_be_null(schema: &Value) -> bool {
    let is_null = |kind: &Value| *kind == "null" || kind["type"] == "null";
    ["type", "oneOf", "anyOf"]
        .into_iter()
        .any(|word| schema[word].as_array().is_some_and(|all| all.iter().any(is_null)))
}

/// The type of what is not null.
pub(super) fn kind(schema: &Value) -> &str {
    let of_list = || schema["type"].as_array()?.iter().filter_map(Value::as_str).find(|kind| *kind != "null");
    let implied = if schema.get("properties").is_some() { "object" } else { "" };
    schema["type"].as_str().or_else(of_list).unwrap_or(implied)
}

/// The members of an object.
pub(super) fn members(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

/// A row for each member of what is described, and for theirs.
pub(super) fn fields(document: &Value, schema: &Value) -> Vec<Field> {
    let mut all = Vec::new();
    collect(document, schema, "", &mut Vec::new(), &mut all);
    all
}

fn collect<'a>(document: &'a Value, schema: &'a Value, at: &str, open: &mut Vec<&'a Value>, all: &mut Vec<Field>) {
    let schema = without_null(document, resolve(document, schema));
    // What holds itself is told once.
    if open.iter().any(|outer| std::ptr::eq(*outer, schema)) {
        return;
    }
    open.push(schema);
    if let Some(items) = schema.get("items") {
        collect(document, items, &format!("{at}[]"), open, all);
    }
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|it| it == name));
    for (name, member) in members(schema) {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        let described = without_null(document, resolve(document, member));
        let description =
            [member, resolve(document, member), described].into_iter().find_map(|it| it["description"].as_str());
        all.push(Field {
            path: path.clone(),
            kind: words(document, member),
            names: names(described),
            required: required(name),
            description: description.unwrap_or_default().to_owned(),
        });
        collect(document, member, &path, open, all);
    }
    open.pop();
}

/// The names that a value may be.
pub(super) fn names(schema: &Value) -> Vec<String> {
    let of = if kind(schema) == "array" { &schema["items"]["enum"] } else { &schema["enum"] };
    of.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What a schema allows, in a few words: `integer, 1 to 24, or null`.
pub(super) fn words(document: &Value, schema: &Value) -> String {
    let schema = resolve(document, schema);
    let inner = without_null(document, schema);
    let mut words = match kind(inner) {
        "array" => {
            format!("array of {}", inner.get("items").map_or("anything".to_owned(), |items| words(document, items)))
        }
        "" => "anything".to_owned(),
        kind => inner["format"].as_str().filter(|_| kind == "string").unwrap_or(kind).to_owned(),
    };
    let (least, most) = (inner["minimum"].as_i64(), inner["maximum"].as_i64());
    match (least, most) {
        (Some(least), Some(most)) => words += &format!(", {least} to {most}"),
        (Some(0), None) if kind(inner) == "integer" => {}
        (Some(least), None) => words += &format!(", {least} or more"),
        (None, Some(most)) => words += &format!(", {most} or less"),
        (None, None) => {}
    }
    if let Some(most) = inner["maxLength"].as_u64() {
        words += &format!(", at most {most} characters");
    }
    if may_be_null(schema) {
        words += ", or null";
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_rows_with_paths_and_words() {
        let document = json!({"components": {"schemas": {
            "List": {"type": "object", "required": ["data"], "properties": {
                "data": {"type": "array", "items": {"$ref": "#/components/schemas/Job"}, "description": "The jobs."},
            }},
            "Job": {"type": "object", "description": "One job.", "properties": {
                "window": {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Window"}]},
                "hours": {"type": ["integer", "null"], "minimum": 1, "maximum": 24},
                "state": {"type": "string", "enum": ["queued", "running"]},
                "parent": {"$ref": "#/components/schemas/Job"},
            }},
            "Window": {"type": "object", "properties": {"since": {"type": "string", "format": "date-time"}}},
        }}});
        let list = json!({"$ref": "#/components/schemas/List"});
        let rows: Vec<(String, String)> =
            fields(&document, &list).into_iter().map(|field| (field.path, field.kind)).collect();
        let row = |path: &str, kind: &str| (path.to_owned(), kind.to_owned());
        let expected = [
            row("data", "array of object"),
            row("data[].hours", "integer, 1 to 24, or null"),
            row("data[].parent", "object"),
            row("data[].state", "string"),
            row("data[].window", "object, or null"),
            row("data[].window.since", "date-time"),
        ];
        assert_eq!(rows, expected);
        let fields = fields(&document, &list);
        assert!(fields[0].required && !fields[1].required);
        assert_eq!(fields[0].description, "The jobs.");
        assert_eq!(fields[3].names, ["queued", "running"]);
    }
}
