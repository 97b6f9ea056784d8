//! Running text of the document as HTML: code between backticks, and codes that lead to their place in the table.

use maud::{Markup, html};

use super::CodeRow;

/// A paragraph's text.
pub(super) fn inline(text: &str, codes: &[CodeRow]) -> Markup {
    html! {
        @for (number, part) in text.split('`').enumerate() {
            // Every other part stands between backticks.
            @if number % 2 == 1 { code { (part) } } @else { (with_codes(part, codes)) }
        }
    }
}

/// Paragraphs with an empty line between them.
pub(super) fn paragraphs(text: &str, codes: &[CodeRow]) -> Markup {
    html! {
        @for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
            p { (inline(paragraph, codes)) }
        }
    }
}

/// Text in which every code of an answer leads to what it means.
fn with_codes(text: &str, codes: &[CodeRow]) -> Markup {
    let is_of_code = |letter: char| letter.is_ascii_alphanumeric() || letter == '.';
    let mut rest = text;
    let mut parts = Vec::new();
    while let Some(begin) = rest.find(is_of_code) {
        let end = rest[begin..].find(|letter| !is_of_code(letter)).map_or(rest.len(), |length| begin + length);
        let word = rest[begin..end].trim_end_matches('.');
        parts.push((&rest[..begin], word, codes.iter().find(|row| row.code == word && row.status.is_some())));
        rest = &rest[begin + word.len()..];
        if word.is_empty() {
            // A full stop that ends nothing.
            let (dot, after) = rest.split_at(1);
            parts.push((dot, "", None));
            rest = after;
        }
    }
    html! {
        @for (before, word, row) in parts {
            (before)
            @if let Some(row) = row { a href={ "#" (row.anchor()) } { code { (word) } } } @else { (word) }
        }
        (rest)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn text_is_escaped_code_is_marked_and_codes_lead_to_the_table() {
        let row = |status, code| CodeRow { status, code, meaning: "", remedy: "" };
        let codes = [row(Some(StatusCode::NOT_FOUND), "Job.NotFound"), row(None, "Job.Coalesced")];
        for (text, markup) in [
            ("", ""),
            ("plain.", "plain."),
            ("... a . b", "... a . b"),
            ("<b> & `<i>`", "&lt;b&gt; &amp; <code>&lt;i&gt;</code>"),
            (
                "Job.NotFound — gone; Job.Coalesced.",
                r##"<a href="#code-Job.NotFound"><code>Job.NotFound</code></a> — gone; Job.Coalesced."##,
            ),
            ("(Job.NotFound).", r##"(<a href="#code-Job.NotFound"><code>Job.NotFound</code></a>)."##),
            ("`Job.NotFound` é", "<code>Job.NotFound</code> é"),
        ] {
            assert_eq!(inline(text, &codes).into_string(), markup, "{text}");
        }
        assert_eq!(paragraphs("a\n\n\n\nb", &codes).into_string(), "<p>a</p><p>b</p>");
    }
}
