//! How much of a mail goes into one record. A sender decides what stands in a header; nobody's mail may make a record
//! that no broker takes, so each field has a measure, and what is beyond it is cut and told.

/// Bytes of a text that stands alone, such as a subject.
pub(super) const LINE: usize = 4 << 10;
/// Bytes of a text in a list, such as a name or an address.
pub(super) const NAME: usize = 1 << 10;
/// Items of one list.
pub(super) const ITEMS: usize = 1_000;

/// Bytes of all texts of one field of addresses.
pub(super) const ADDRESSES: usize = 64 << 10;
/// Bytes of all names and types of files.
pub(super) const FILES: usize = 64 << 10;
/// Bytes of all ids of one field of ids.
pub(super) const IDS: usize = 16 << 10;
/// Bytes of all `Authentication-Results`.
pub(super) const RESULTS: usize = 32 << 10;
/// Bytes of all labels.
pub(super) const LABELS: usize = 16 << 10;

/// What all the measures come to, with eleven single lines.
const ALL: usize = 4 * ADDRESSES + FILES + 2 * IDS + RESULTS + LABELS + 11 * LINE;
const _: () = assert!(ALL <= domain::fetched::MAX_TEXT, "all fields together are within what a record may hold");

/// The fields that were cut.
#[derive(Debug, Default)]
pub(super) struct Cuts(Vec<String>);

impl Cuts {
    /// Notes that something of this field is missing.
    pub(super) fn note(&mut self, field: &'static str) {
        if !self.0.iter().any(|noted| noted == field) {
            self.0.push(field.to_owned());
        }
    }

    /// `text`, cut to what a field of one line may hold; none when it is empty.
    pub(super) fn line(&mut self, field: &'static str, mut text: String) -> Option<String> {
        if shorten(&mut text, LINE) {
            self.note(field);
        }
        (!text.is_empty()).then_some(text)
    }

    /// What a field that is a list may hold.
    pub(super) fn list(&mut self, field: &'static str, bytes: usize) -> Room<'_> {
        Room { field, bytes, items: ITEMS, cuts: self }
    }

    /// Their names.
    pub(super) fn names(self) -> Vec<String> {
        self.0
    }
}

/// What is left for a list.
#[derive(Debug)]
pub(super) struct Room<'a> {
    field: &'static str,
    bytes: usize,
    items: usize,
    cuts: &'a mut Cuts,
}

impl Room<'_> {
    /// Whether an item of these texts, and of so many bytes besides, goes in; each text is cut to the measure of one.
    /// What does not go in ends the list.
    pub(super) fn takes(&mut self, texts: &mut [&mut String], most: usize, besides: usize) -> bool {
        for text in texts.iter_mut() {
            if shorten(text, most) {
                self.note();
            }
        }
        let bytes = besides + texts.iter().map(|text| text.len()).sum::<usize>();
        if self.items == 0 || bytes > self.bytes {
            self.note();
            self.items = 0;
            return false;
        }
        self.items -= 1;
        self.bytes -= bytes;
        true
    }

    /// Whether nothing more goes in.
    pub(super) fn is_full(&self) -> bool {
        self.items == 0
    }

    /// Notes that the list is not whole.
    pub(super) fn note(&mut self) {
        self.cuts.note(self.field);
    }
}

/// Cuts a text to at most so many bytes, between characters. Whether it did.
pub(super) fn shorten(text: &mut String, most: usize) -> bool {
    let cut = text.len() > most;
    if cut {
        text.truncate(text.floor_char_boundary(most));
    }
    cut
}
