//! The page that the API is read and tried on.

use std::collections::BTreeSet;

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use super::api::Api;

/// What stands between the quotes of every attribute of this name.
fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!(" {name}=\"");
    html.split(&begin).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers()[name].to_str().unwrap()
}

#[tokio::test]
async fn the_page_shows_every_call_and_code_and_needs_nobody_but_us() {
    let api = Api::start("docs").await;
    // Without a key, as the document.
    let get = async |path: &str| api.client.get(format!("{}{path}", api.base)).send().await.unwrap();
    let document: Value = get("/openapi.json").await.json().await.unwrap();
    let answer = get("/docs").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(header(&answer, "content-type"), "text/html; charset=utf-8");
    let page = answer.url().clone();
    let html = answer.text().await.unwrap();

    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let mut listed = 0;
    for operation in operations {
        let name = operation["operationId"].as_str().unwrap();
        assert_eq!(html.matches(&format!("id=\"{name}\"")).count(), 1, "{name} is told once");
        assert!(html.contains(&format!("href=\"#{name}\"")), "{name} is not in the list");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let field = format!("id=\"{name}-{}\"", parameter["name"].as_str().unwrap());
            assert!(html.contains(&field), "{field} cannot be tried");
        }
        listed += 1;
    }
    assert!(listed >= 14 && html.matches("<form data-method").count() == listed, "{listed} calls");
    let table = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/codes.md")).unwrap();
    for line in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| 4xx")).skip(1) {
        let code = line.split('`').nth(1).unwrap();
        let family = if line.starts_with("| job") { "job-code" } else { "code" };
        assert!(html.contains(&format!("id=\"{family}-{code}\"")), "{code} is not on the page");
    }

    // What leads within the page leads somewhere.
    let ids: BTreeSet<&str> = attributes(&html, "id").into_iter().collect();
    assert_eq!(ids.len(), attributes(&html, "id").len(), "every id is there once");
    let mut addresses = attributes(&html, "href");
    for target in addresses.extract_if(.., |address| address.starts_with('#')) {
        assert!(ids.contains(&target[1..]), "{target} leads nowhere");
    }
    // All else is ours, and is there.
    addresses.extend(attributes(&html, "src"));
    assert!(addresses.contains(&"docs/style.css") && addresses.contains(&"docs/try.js"), "{addresses:?}");
    for address in addresses {
        let url = page.join(address).unwrap();
        assert_eq!(url.origin(), page.origin(), "{address} is another's");
        let answer = api.client.get(url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{address}");
        let text = answer.text().await.unwrap();
        if address != "openapi.json" && address != "docs/icon.svg" {
            for foreign in ["http://", "https://", "@import", "url(", "localStorage", "sessionStorage", "cookie"] {
                assert!(!text.contains(foreign), "{address} has {foreign}");
            }
        }
    }
    for inline in ["<style", " style=", " onclick=", " onload=", "javascript:", "<script>"] {
        assert!(!html.contains(inline), "the page has {inline}");
    }
}

#[tokio::test]
async fn the_page_and_its_parts_are_guarded_and_sent_once() {
    let api = Api::start("docs-guarded").await;
    for path in ["/docs", "/docs/style.css", "/docs/try.js", "/docs/icon.svg", "/openapi.json"] {
        let get = || api.client.get(format!("{}{path}", api.base));
        let answer = get().send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let policy = header(&answer, "content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{path}: {policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'none'"), "{path}: {policy}");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header(&answer, "cache-control"), "no-cache", "{path}");
        let tag = header(&answer, "etag").to_owned();
        let length = answer.bytes().await.unwrap().len();
        let again = get().header("if-none-match", &tag).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
        assert_eq!(header(&again, "etag"), tag, "{path}");
        assert!(again.bytes().await.unwrap().is_empty(), "{path}");
        let head = api.client.request(Method::HEAD, format!("{}{path}", api.base)).send().await.unwrap();
        assert_eq!(
            (head.status(), header(&head, "content-length")),
            (StatusCode::OK, length.to_string().as_str()),
            "{path}"
        );
    }
}
