//! The page: every call with what it takes and answers, and the table of codes.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use super::CodeRow;
use super::example::example;
use super::fields::{Field, fields, names, resolve, words};
use super::text::{inline, paragraphs};

/// The order of an item's methods on the page.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// One call of the document.
struct Call<'a> {
    method: &'a str,
    path: &'a str,
    operation: &'a Value,
}

impl<'a> Call<'a> {
    /// Its name: the page's anchor.
    fn id(&self) -> &'a str {
        self.operation["operationId"].as_str().unwrap_or_default()
    }

    fn summary(&self) -> &'a str {
        self.operation["summary"].as_str().unwrap_or(self.path)
    }

    fn tag(&self) -> &'a str {
        self.operation["tags"][0].as_str().unwrap_or("More")
    }

    fn needs_key(&self) -> bool {
        self.operation["security"].as_array().is_some_and(|ways| !ways.is_empty())
    }

    fn parameters(&self) -> impl Iterator<Item = &'a Value> {
        self.operation["parameters"].as_array().into_iter().flatten()
    }

    /// The body that it takes: its description and the schema of its JSON.
    fn body(&self, document: &'a Value) -> Option<&'a Value> {
        self.operation.get("requestBody").map(|body| resolve(document, body))
    }
}

/// The whole page as HTML.
pub(super) fn page(document: &Value, codes: &[CodeRow]) -> String {
    let page = Page { document, codes, header: document["components"]["securitySchemes"]["ApiKey"]["name"].as_str() };
    page.whole().into_string()
}

struct Page<'a> {
    document: &'a Value,
    codes: &'a [CodeRow],
    /// The header that carries the API key.
    header: Option<&'a str>,
}

impl<'a> Page<'a> {
    /// The calls by their tags, both in the document's order; those without a tag at the end.
    fn groups(&self) -> Vec<(&'a str, Vec<Call<'a>>)> {
        let items = self.document["paths"].as_object().into_iter().flatten();
        let calls = items.flat_map(|(path, item)| {
            let of_method = |method| item.get(method).map(|operation| Call { method, path, operation });
            METHODS.into_iter().filter_map(of_method)
        });
        let tags = self.document["tags"].as_array().into_iter().flatten().filter_map(|tag| tag["name"].as_str());
        let mut groups: Vec<(&str, Vec<Call<'_>>)> = tags.map(|tag| (tag, Vec::new())).collect();
        for call in calls {
            match groups.iter_mut().find(|(tag, _)| *tag == call.tag()) {
                Some((_, calls)) => calls.push(call),
                None => groups.push((call.tag(), vec![call])),
            }
        }
        groups.retain(|(_, calls)| !calls.is_empty());
        groups
    }

    fn whole(&self) -> Markup {
        let info = &self.document["info"];
        let title = info["title"].as_str().unwrap_or("API");
        // What comes under a heading there is told by the page in its own way.
        let about = info["description"].as_str().unwrap_or_default().split("\n\n## ").next().unwrap_or_default();
        let groups = self.groups();
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) " API" }
                    link rel="icon" href="docs/icon.svg" type="image/svg+xml";
                    link rel="stylesheet" href="docs/style.css";
                    script src="docs/try.js" defer {}
                }
                body {
                    a.skip href="#calls" { "Skip to the calls" }
                    header {
                        h1 { (title) " API" }
                        (paragraphs(about, self.codes))
                        p { "The same for machines: " a href="openapi.json" { "openapi.json" } " (OpenAPI 3.1). " a href="#codes" { "Codes" } " of refusals and failed jobs are at the end." }
                        @if let Some(header) = self.header { (key_field(header)) }
                    }
                    nav aria-label="Calls" {
                        details open {
                            summary { "Calls" }
                            @for (tag, calls) in &groups {
                                h2 { (tag) }
                                ul { @for call in calls { li { a href={ "#" (call.id()) } { (method(call.method)) " " (call.summary()) } } } }
                            }
                            p { a href="#codes" { "Codes" } }
                        }
                    }
                    main id="calls" {
                        @for (tag, calls) in &groups {
                            h2 { (tag) }
                            @if let Some(about) = self.about_tag(tag) { p { (about) "." } }
                            @for call in calls { (self.call(call)) }
                        }
                        (self.table_of_codes())
                    }
                }
            }
        }
    }

    fn about_tag(&self, name: &str) -> Option<&str> {
        self.document["tags"].as_array()?.iter().find(|tag| tag["name"] == name)?["description"].as_str()
    }

    fn call(&self, call: &Call<'_>) -> Markup {
        html! {
            section.call id=(call.id()) {
                h3 { a href={ "#" (call.id()) } { (call.summary()) } }
                p.line { (method(call.method)) " " code.path { (broken_at_slashes(call.path)) } }
                @if let Some(about) = call.operation["description"].as_str() { (paragraphs(about, self.codes)) }
                p.scope {
                    @if !call.needs_key() { "Takes no API key." }
                    @else if call.method == "get" { "Needs an API key of scope " code { "read" } "." }
                    @else { "Needs an API key of scope " code { "write" } "." }
                }
                (self.parameters(call))
                (self.body(call))
                h4 { "Answers" }
                @for (status, response) in call.operation["responses"].as_object().into_iter().flatten() {
                    (self.response(status, resolve(self.document, response)))
                }
                (self.command(call))
                (self.form(call))
            }
        }
    }

    fn parameters(&self, call: &Call<'_>) -> Markup {
        if call.parameters().next().is_none() {
            return html! {};
        }
        let rows = call.parameters().map(|parameter| {
            let schema = &parameter["schema"];
            let place = parameter["in"].as_str().unwrap_or_default();
            let field = Field {
                path: parameter["name"].as_str().unwrap_or_default().to_owned(),
                kind: format!("{place}: {}", words(self.document, schema)),
                names: names(schema),
                required: parameter["required"] == true,
                description: parameter["description"].as_str().unwrap_or_default().to_owned(),
            };
            (field, schema["default"].clone())
        });
        html! {
            h4 { "Parameters" }
            dl.fields {
                @for (field, default) in rows {
                    (self.row(&field, true))
                    @if !default.is_null() { dd { "Without it: " code { (default) } } }
                }
            }
        }
    }

    fn body(&self, call: &Call<'_>) -> Markup {
        let Some(body) = call.body(self.document) else { return html! {} };
        let Some(schema) = json_schema(body) else { return html! {} };
        html! {
            h4 { "Body" @if body["required"] != true { " (may be left out)" } }
            @if let Some(about) = body["description"].as_str() { p { (inline(about, self.codes)) "." } }
            (self.table(schema, true))
            (json_block("Example of the body", &example(self.document, schema)))
        }
    }

    fn response(&self, status: &str, response: &Value) -> Markup {
        let about = response["description"].as_str().unwrap_or_default();
        let content = response["content"].as_object().and_then(|content| content.iter().next());
        // Every refusal has the same members, which the table of codes tells once.
        let content = content.filter(|(kind, _)| *kind != "application/problem+json");
        let headers = response["headers"].as_object();
        let is_good = status.starts_with(['2', '3']);
        html! {
            details.answer open[is_good] {
                summary { span.status.good[is_good].bad[!is_good] { (status) } " " (inline(about, self.codes)) }
                @for (name, header) in headers.into_iter().flatten() {
                    p.header { code { (name) } ": " (inline(header["description"].as_str().unwrap_or_default(), self.codes)) }
                }
                @if let Some((kind, content)) = content {
                    p.kind { code { (kind) } }
                    (self.table(&content["schema"], false))
                    (json_block("Example of the answer", &example(self.document, &content["schema"])))
                } @else if !is_good {
                    p { "A " a href="#problem" { "problem" } " whose " code { "title" } " is one of these codes." }
                }
            }
        }
    }

    /// The members of what a schema describes. Of an answer nearly all are always there, of a request few must be.
    fn table(&self, schema: &Value, is_request: bool) -> Markup {
        let rows = fields(self.document, schema);
        html! { @if !rows.is_empty() { dl.fields { @for row in &rows { (self.row(row, is_request)) } } } }
    }

    fn row(&self, field: &Field, is_request: bool) -> Markup {
        html! {
            dt {
                code { (field.path) } " " span.kind { (field.kind) }
                @if is_request && field.required { " " span.required { "required" } }
                @if !is_request && !field.required { " " span.kind { "(may be missing)" } }
            }
            @if !field.description.is_empty() { dd { (inline(&field.description, self.codes)) } }
            @if !field.names.is_empty() {
                dd { "One of " @for (number, name) in field.names.iter().enumerate() { @if number > 0 { ", " } code { (name) } } "." }
            }
        }
    }

    /// The call as a command of a shell.
    fn command(&self, call: &Call<'_>) -> Markup {
        let mut command = format!("curl -i -X {} \"$API{}\"", call.method.to_uppercase(), call.path);
        if let Some(header) = self.header.filter(|_| call.needs_key()) {
            command += &format!(" \\\n  -H \"{header}: $KEY\"");
        }
        if let Some(schema) = call.body(self.document).and_then(json_schema) {
            let body = example(self.document, schema);
            command += &format!(" \\\n  -H 'content-type: application/json' \\\n  -d '{body}'");
        }
        html! { details { summary { "As a command" } pre tabindex="0" { code { (command) } } } }
    }

    /// What the script turns into a request. Without the script it is not shown.
    fn form(&self, call: &Call<'_>) -> Markup {
        let body = call.body(self.document).and_then(json_schema);
        html! {
            details.try hidden {
                summary { "Try it" }
                form data-method=(call.method.to_uppercase()) data-path=(call.path) data-key[call.needs_key()] {
                    @for parameter in call.parameters() { (self.input(call, parameter)) }
                    @if let Some(schema) = body {
                        label { "Body"
                            textarea name="body" rows="6" spellcheck="false" autocomplete="off" {
                                (pretty(&example(self.document, schema)))
                            }
                        }
                    }
                    p.buttons {
                        button type="submit" { "Send " (call.method.to_uppercase()) }
                        " " button.stop type="button" hidden { "Stop" }
                    }
                }
                div.outcome role="status" {}
            }
        }
    }

    fn input(&self, call: &Call<'_>, parameter: &Value) -> Markup {
        let name = parameter["name"].as_str().unwrap_or_default();
        let place = parameter["in"].as_str().unwrap_or_default();
        let id = format!("{}-{name}", call.id());
        let names = names(&parameter["schema"]);
        let required = parameter["required"] == true;
        html! {
            label for=(id) { code { (name) } @if required { " " span.required { "required" } } }
            @if names.is_empty() {
                input id=(id) data-in=(place) name=(name) required[required] autocomplete="off" autocapitalize="off" spellcheck="false";
            } @else {
                select id=(id) data-in=(place) name=(name) {
                    option value="" { "any" }
                    @for name in &names { option { (name) } }
                }
            }
        }
    }

    fn table_of_codes(&self) -> Markup {
        let problem = &self.document["components"]["schemas"]["ProblemDetails"];
        html! {
            section id="problem" {
                h2 { "Problems" }
                p { "Every refusal and failure is a problem document (RFC 9457), " code { "application/problem+json" } ". Its " code { "title" } " is one of the codes below, its " code { "detail" } " a sentence for whoever reads logs, its " code { "instance" } " the path that was asked for." }
                @if problem.is_object() { (self.table(problem, false)) }
            }
            section id="codes" {
                h2 { "Codes" }
                p { "Codes are part of the contract: they are added to, never renamed. Those marked " b { "job" } " are the " code { "code" } " of a job that failed." }
                table {
                    thead { tr { th scope="col" { "Status" } th scope="col" { "Code" } th scope="col" { "What it means" } th scope="col" { "What to do" } } }
                    tbody {
                        @for row in self.codes {
                            tr id=(row.anchor()) {
                                td { @if let Some(status) = row.status { (status.as_u16()) } @else { "job" } }
                                th scope="row" { code { (broken_at_dots(row.code)) } }
                                td { (inline(row.meaning, &[])) }
                                td { (inline(row.remedy, &[])) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Where the key is typed in. It stays in the page, which forgets it when it is left.
fn key_field(header: &str) -> Markup {
    html! {
        form.key id="key-form" hidden {
            label for="key" { "API key, to try calls with" }
            input id="key" type="password" data-header=(header) autocomplete="off" autocapitalize="off" spellcheck="false" aria-describedby="key-note";
            p.note id="key-note" { "It is sent to this service alone, in the header " code { (header) } ", and forgotten when you leave the page. What you try is real." }
        }
    }
}

fn method(name: &str) -> Markup {
    html! { span.method.(name) { (name.to_uppercase()) } }
}

/// The schema of a JSON body.
fn json_schema(body: &Value) -> Option<&Value> {
    body["content"]["application/json"].get("schema")
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("a JSON value serialises")
}

fn json_block(title: &str, value: &Value) -> Markup {
    // Scrolled by keys, so it takes the focus.
    html! { pre tabindex="0" aria-label=(title) { code { (pretty(value)) } } }
}

/// Lets a narrow page break a path between its parts.
fn broken_at_slashes(path: &str) -> Markup {
    html! { @for part in path.split_inclusive('/') { (part) (PreEscaped("<wbr>")) } }
}

/// The same for a dotted code.
fn broken_at_dots(code: &str) -> Markup {
    html! { @for part in code.split_inclusive('.') { (part) (PreEscaped("<wbr>")) } }
}
