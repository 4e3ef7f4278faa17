//! A reader of JSON that makes no tree: callers take what they expect, so that memory stays bounded by what they
//! keep and errors name the byte. For the headers of safetensors files, which may be 100 MB of hostile text.

use super::cursor::quoted;
use crate::base::error::{Error, Result};

/// Values nested deeper than this are refused, also where they are skipped.
const DEEPEST: usize = 64;

/// A place in JSON text.
pub(super) struct Json<'t> {
    text: &'t [u8],
    position: usize,
    /// Where the text begins in its file, for errors.
    start: u64,
}

impl<'t> Json<'t> {
    /// The beginning of `text`, which stands at byte `start` of its file.
    pub fn new(text: &'t [u8], start: u64) -> Json<'t> {
        Json {
            text,
            position: 0,
            start,
        }
    }

    /// The offset in the file of what comes next, behind white space.
    pub fn offset(&mut self) -> u64 {
        self.peek();
        self.start + self.position as u64
    }

    /// An object: calls `entry` with each key, its offset, and the reader, from which it must take the value.
    pub fn object(&mut self, mut entry: impl FnMut(&mut Json<'t>, String, u64) -> Result<()>) -> Result<()> {
        self.expect(b'{', "an object")?;
        if self.accept(b'}') {
            return Ok(());
        }
        loop {
            let at = self.offset();
            let key = self.string()?;
            self.expect(b':', "':'")?;
            entry(self, key, at)?;
            if self.accept(b'}') {
                return Ok(());
            }
            self.expect(b',', "',' or '}'")?;
        }
    }

    /// An array: calls `element` with the reader, from which it must take the value.
    pub fn array(&mut self, mut element: impl FnMut(&mut Json<'t>) -> Result<()>) -> Result<()> {
        self.expect(b'[', "an array")?;
        if self.accept(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if self.accept(b']') {
                return Ok(());
            }
            self.expect(b',', "',' or ']'")?;
        }
    }

    /// A string.
    pub fn string(&mut self) -> Result<String> {
        self.expect(b'"', "a string")?;
        let start = self.position;
        let rest = &self.text[start..];
        let mut length = 0;
        loop {
            match rest.get(length) {
                Some(b'"') => break,
                // What a backslash guards, be it a quote, does not end the string.
                Some(b'\\') => length += 2,
                Some(_) => length += 1,
                None => return Err(self.wrong("a string with a closing '\"'")),
            }
        }
        self.position += length + 1;
        // `serde_json` knows escapes and refuses control characters and bytes that are not UTF-8.
        serde_json::from_slice(&self.text[start - 1..=start + length]).map_err(|error| {
            Error::format(format!(
                "JSON at byte {}: found a string that is not valid ({error})",
                self.start + start as u64 - 1
            ))
        })
    }

    /// An integer that is not negative.
    pub fn integer(&mut self) -> Result<u64> {
        self.peek();
        let digits = self.word();
        let length = digits.len();
        let number = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok());
        // "+1" and "01" are numbers to Rust but not in JSON.
        match number {
            Some(number) if digits == b"0" || matches!(digits.first(), Some(b'1'..=b'9')) => {
                self.position += length;
                Ok(number)
            }
            _ => Err(self.wrong("an integer from 0 to 18446744073709551615")),
        }
    }

    /// Takes a `null` if one comes next.
    pub fn null(&mut self) -> bool {
        self.peek();
        let found = self.word() == b"null";
        if found {
            self.position += 4;
        }
        found
    }

    /// Any value, which is dropped.
    pub fn skip(&mut self) -> Result<()> {
        self.skip_within(DEEPEST)
    }

    fn skip_within(&mut self, depth: usize) -> Result<()> {
        if depth == 0 {
            return Err(self.wrong(&format!("values nested at most {DEEPEST} deep")));
        }
        match self.peek() {
            Some(b'{') => self.object(|json, _, _| json.skip_within(depth - 1)),
            Some(b'[') => self.array(|json| json.skip_within(depth - 1)),
            Some(b'"') => self.string().map(|_| ()),
            _ => {
                let word = self.word();
                if word.is_empty() || serde_json::from_slice::<serde_json::Value>(word).is_err() {
                    return Err(self.wrong("a value"));
                }
                self.position += word.len();
                Ok(())
            }
        }
    }

    /// Checks that only white space is left.
    pub fn end(&mut self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.wrong("nothing more")),
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.position) {
            self.position += 1;
        }
        self.text.get(self.position).copied()
    }

    /// The letters, digits and signs that come next: a number, `true`, `false` or `null`.
    fn word(&self) -> &'t [u8] {
        let rest = &self.text[self.position..];
        let length = rest
            .iter()
            .position(|byte| !byte.is_ascii_alphanumeric() && !b"+-.".contains(byte))
            .unwrap_or(rest.len());
        &rest[..length]
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.position += 1;
        }
        found
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<()> {
        if self.accept(byte) {
            return Ok(());
        }
        Err(self.wrong(what))
    }

    fn wrong(&mut self, expected: &str) -> Error {
        let at = self.offset();
        let rest = &self.text[self.position..];
        let found = match rest {
            [] => "the end of the text".to_owned(),
            _ => quoted(&String::from_utf8_lossy(&rest[..rest.len().min(20)])),
        };
        Error::format(format!("JSON at byte {at}: found {found}, expected {expected}"))
    }
}
