//! Address lists (RFC 5322 §3.4), groups and the forms of old included, by the library; around it what real headers
//! need. Encoded words are taken out before it parses and put back decoded afterwards, so that nothing which was
//! encoded, such as a comma in a name, is taken for structure.

use domain::Address;
use mail_parser::parsers::MessageStream;
use mail_parser::{Addr, Address as Parsed, HeaderValue};

use super::measure::{ADDRESSES, LINE, NAME, Room, shorten};
use super::words::{self, Decoded, Piece, Words};

/// Stands on both sides of the number of what was taken out. A character for private use: in a header it says nothing.
const MARK: char = '\u{f8ff}';

/// The addresses of all headers of one name. Where a header is not understood, the first address that it concerns
/// keeps its text.
pub(super) fn addresses<'a>(headers: impl Iterator<Item = &'a str>, room: &mut Room<'_>) -> Vec<Address> {
    let mut found = Vec::new();
    for header in headers {
        if room.is_full() {
            room.note();
            break;
        }
        let whole = header;
        let header = first_addresses(header);
        if header.len() < whole.len() {
            room.note();
        }
        for mut address in of_header(header) {
            let Address { name, address: spelled, group, raw } = &mut address;
            // What was left of it would be somebody else's.
            if spelled.as_ref().is_some_and(|spelled| spelled.len() > NAME) {
                *spelled = None;
                room.note();
            }
            if raw.as_mut().is_some_and(|raw| shorten(raw, LINE)) {
                room.note();
            }
            let mut texts: Vec<&mut String> = [name, spelled, group].into_iter().flatten().collect();
            if !room.takes(&mut texts, NAME, raw.as_ref().map_or(0, String::len)) {
                break;
            }
            found.push(address);
        }
    }
    found
}

/// As much of a header as is parsed, up to a comma.
fn first_addresses(header: &str) -> &str {
    if header.len() <= ADDRESSES {
        return header;
    }
    let start = &header[..header.floor_char_boundary(ADDRESSES)];
    start.rfind(',').map_or(start, |comma| &start[..comma])
}

fn of_header(header: &str) -> Vec<Address> {
    let pieces = words::pieces(header);
    let masked = masked(&pieces);
    let taken: Vec<&Words<'_>> = pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Words(words) => Some(words),
            Piece::Text(_) => None,
        })
        .collect();
    let groups = match MessageStream::new(masked.as_bytes()).parse_address() {
        HeaderValue::Address(Parsed::List(list)) => vec![(None, list)],
        HeaderValue::Address(Parsed::Group(groups)) => {
            groups.into_iter().map(|group| (group.name, group.addresses)).collect()
        }
        _ => Vec::new(),
    };
    if groups.is_empty() {
        let raw = Some(words::printable(header)).filter(|raw| !raw.is_empty());
        return raw.map(|raw| Address { raw: Some(raw), ..Address::default() }).into_iter().collect();
    }
    let mut understood = true;
    let mut found: Vec<Address> = Vec::new();
    for (group, list) in groups {
        let group = group.map(|group| put_back(&group, &taken)).filter(|group| !group.text.is_empty());
        let group_is_clean = group.as_ref().is_none_or(|group| group.clean);
        let begin = found.len();
        for addr in list {
            let (one, clean) = one(&addr, &taken, group.as_ref().map(|group| group.text.clone()));
            let before = if found.len() > begin { found.last_mut() } else { None };
            match before {
                // "Miller, John <j@x>", whose quotes were lost on the way.
                Some(before) if before.address.is_none() && one.address.is_some() && one.name.is_some() => {
                    let names = [before.name.take(), one.name].map(Option::unwrap_or_default);
                    *before = Address { name: Some(names.join(", ")), raw: before.raw.take(), ..one };
                }
                _ => found.push(one),
            }
            let last =
                found.last_mut().filter(|last| understood && (!clean || !group_is_clean || last.address.is_none()));
            if let Some(last) = last {
                last.raw = Some(words::printable(header));
                understood = false;
            }
        }
    }
    found
}

/// The header with a number in place of each run of encoded words, on a line of its own as the parser wants it.
fn masked(pieces: &[Piece<'_>]) -> String {
    let mut masked = String::new();
    let mut n = 0;
    for piece in pieces {
        match piece {
            Piece::Text(text) => masked.extend(text.chars().map(|c| match c {
                MARK => char::REPLACEMENT_CHARACTER,
                c if c.is_control() => ' ',
                c => c,
            })),
            Piece::Words(_) => {
                masked.push(MARK);
                masked.push_str(&n.to_string());
                masked.push(MARK);
                n += 1;
            }
        }
    }
    masked.push('\n');
    masked
}

/// Text with what was taken out put back.
fn put_back(text: &str, taken: &[&Words<'_>]) -> Decoded {
    let mut whole = String::with_capacity(text.len());
    let mut clean = !text.contains("=?");
    for (n, stretch) in text.split(MARK).enumerate() {
        // Marks come in pairs, so that every other stretch is a number.
        match stretch.parse::<usize>().ok().filter(|_| n % 2 == 1).and_then(|n| taken.get(n)) {
            Some(words) => {
                let decoded = words.decode();
                clean &= decoded.clean;
                whole.push_str(&decoded.text);
            }
            None => whole.push_str(stretch),
        }
    }
    let Decoded { text, clean: printable } = Decoded::new(&whole, true);
    Decoded { text, clean: clean && printable }
}

/// One address, and whether it was understood.
fn one(addr: &Addr<'_>, taken: &[&Words<'_>], group: Option<String>) -> (Address, bool) {
    let name = addr.name.as_deref().map(|name| put_back(name, taken));
    let clean = name.as_ref().is_none_or(|name| name.clean);
    let name = name.map(|name| name.text).filter(|name| !name.is_empty());
    let spelled = addr.address.as_deref().map(|address| put_back(address, taken).text).unwrap_or_default();
    if is_address(&spelled) {
        return (Address { name, address: Some(spelled), group, raw: None }, clean);
    }
    let name = name.or_else(|| Some(spelled).filter(|spelled| !spelled.is_empty()));
    (Address { name, address: None, group, raw: None }, false)
}

/// Whether the parser found an address and not, where a comma is missing, two run together.
fn is_address(text: &str) -> bool {
    let parts = text.split_once('@');
    parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'))
        && !text.contains(|c: char| {
            c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | MARK | char::REPLACEMENT_CHARACTER)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::measure::Cuts;
    use super::*;

    /// Name, address, group, and whether the header's text was kept.
    type Seen = (Option<String>, Option<String>, Option<String>, bool);

    fn read(header: &str) -> Vec<Seen> {
        let mut cuts = Cuts::default();
        let found = addresses([header].into_iter(), &mut cuts.list("to", ADDRESSES));
        found.into_iter().map(|it| (it.name, it.address, it.group, it.raw.is_some())).collect()
    }

    fn seen(name: &str, address: &str) -> Seen {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        (text(name), text(address), None, false)
    }

    #[test]
    fn addresses_are_found_in_every_form() {
        let cases: [(&str, &[Seen]); 12] = [
            ("a@x", &[seen("", "a@x")]),
            ("<a@x>", &[seen("", "a@x")]),
            ("A B <a@x>, c@y", &[seen("A B", "a@x"), seen("", "c@y")]),
            ("\"Miller, John\" <j@x>", &[seen("Miller, John", "j@x")]),
            ("\"a \\\"b\\\" c\" <j@x>", &[seen("a \"b\" c", "j@x")]),
            ("j@x (John Miller)", &[seen("John Miller", "j@x")]),
            ("=?utf-8?Q?M=C3=BCller=2C_J?= <j@x>", &[seen("Müller, J", "j@x")]),
            ("\"=?utf-8?B?TcO8?= =?utf-8?B?bGxlcg==?=\" <j@x>", &[seen("Müller", "j@x")]),
            ("=?utf-8?B?4oI=?= =?utf-8?B?rA==?= <e@x>", &[seen("€", "e@x")]),
            ("=?utf-8?Q?=3Cb=40evil=3E?= <a@x>", &[seen("<b@evil>", "a@x")]),
            ("Jürgen Müller <j@x>", &[seen("Jürgen Müller", "j@x")]),
            ("undisclosed-recipients:;", &[]),
        ];
        for (header, expected) in cases {
            assert_eq!(read(header), expected, "{header}");
        }
    }

    #[test]
    fn members_of_a_group_name_it() {
        let group = Some("Accounting".to_owned());
        let member = |name: &str, address: &str| {
            let (name, address, _, raw) = seen(name, address);
            (name, address, group.clone(), raw)
        };
        assert_eq!(read("Accounting: a@x, B <b@x>;, c@y"), [member("", "a@x"), member("B", "b@x"), seen("", "c@y")]);
    }

    #[test]
    fn what_is_not_understood_keeps_the_headers_text_once() {
        let mut cuts = Cuts::default();
        let header = "root, a@x, nobody";
        let found = addresses([header].into_iter(), &mut cuts.list("to", ADDRESSES));
        let raws: Vec<_> = found.iter().map(|it| (it.address.as_deref(), it.raw.as_deref())).collect();
        assert_eq!(raws, [(None, Some(header)), (Some("a@x"), None), (None, None)]);
        // Quotes that were lost: one person.
        assert_eq!(
            read("Müller, Jürgen <j@x>"),
            [(Some("Müller, Jürgen".to_owned()), Some("j@x".to_owned()), None, true)]
        );
        // Two that are run together are no address at all.
        assert_eq!(read("<a@x> <b@y>")[0].1, None);
        assert!(read("=?x-no-such?Q?=EF?= <a@x>")[0].3);
        assert!(read("<<>>,,\"")[0].3);
    }

    #[test]
    fn a_header_without_text_concerns_nobody() {
        for header in ["", " ", "\0", "\r\n\t \u{7f}", ",", ";,"] {
            for (name, address, _, raw) in read(header) {
                assert!(raw || name.is_some() || address.is_some(), "{header:?}");
            }
            assert_eq!(read(header).is_empty(), words::printable(header).is_empty(), "{header:?}");
        }
    }

    #[test]
    fn fifty_thousand_recipients_are_cut_and_it_is_told() {
        let header = (0..50_000).map(|n| format!("Person {n} <person.{n}@example.com>")).collect::<Vec<_>>().join(", ");
        let mut cuts = Cuts::default();
        let found = addresses([header.as_str()].into_iter(), &mut cuts.list("to", ADDRESSES));
        assert_eq!(cuts.names(), ["to"]);
        assert!(found.len() > 500 && found.iter().all(|it| it.address.is_some() && it.raw.is_none()));
    }

    #[test]
    fn an_address_is_never_cut_into_another() {
        let long = format!("{}@example.com", "a".repeat(2 * NAME));
        assert_eq!(read(&format!("X <{long}>")), [seen("X", "")]);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_an_address_stands_in_its_header(header in "[ab@,;:<>\"\\\\()=?. \u{f8ff}üQB_-]{0,60}") {
            for (_, address, _, _) in read(&header) {
                if let Some(address) = address {
                    let squeezed: String = header.chars().filter(|c| !c.is_whitespace()).collect();
                    prop_assert_eq!(address.matches('@').count(), 1);
                    prop_assert!(squeezed.contains(&address.chars().next().unwrap().to_string()));
                }
            }
        }

        #[test]
        fn what_is_well_formed_is_read_back(
            people in prop::collection::vec(("[A-Za-zäöü]{1,8}( [A-Za-z]{1,8})?", "[a-z]{1,8}", "[a-z]{1,8}\\.[a-z]{2,3}"), 1..20),
        ) {
            let header: Vec<_> = people.iter().map(|(name, local, domain)| format!("\"{name}\" <{local}@{domain}>")).collect();
            let expected: Vec<_> = people.iter().map(|(name, local, domain)| seen(name, &format!("{local}@{domain}"))).collect();
            prop_assert_eq!(read(&header.join(", ")), expected);
        }
    }
}
