//! Settings: defaults, then a TOML file, then the environment; read by key, checked together.
//!
//! A setting is named by a dotted key such as `poller.lanes`. In the file it is `lanes` in the
//! table `[poller]`, in the environment `MAILTIDE_POLLER_LANES`. Whoever owns a setting reads it
//! with its default and one line of documentation; nothing else declares it. Reading never stops
//! at the first mistake: a malformed value is noted and the default handed out, and
//! [`Source::finish`] reports every malformed, contradicting and unknown key at once.
//!
//! ```
//! use runtime::settings::Source;
//!
//! struct Settings { lanes: u16 }
//!
//! impl Settings {
//!     fn read(source: &mut Source) -> Self {
//!         let lanes = source.read("poller.lanes", 1, "Lanes this process runs");
//!         if lanes == 0 {
//!             source.error("poller.lanes", "must be at least 1");
//!         }
//!         Self { lanes }
//!     }
//! }
//!
//! let mut source = Source::from_parts(None, [("MAILTIDE_POLLER_LANES", "4")]);
//! assert_eq!(Settings::read(&mut source).lanes, 4);
//! assert!(source.finish().is_ok());
//! ```
//!
//! Values stay text until a typed read: a password of digits is not taken for a number.
//! An empty environment variable counts as not set.

mod effective;
mod file;
mod parse;
mod source;

pub use effective::{Effective, Entry, Origin, Problem};
pub use parse::{format_duration, format_size, parse_duration, parse_size};
pub use source::{CONFIG_VARIABLE, Error, PREFIX, Source};
