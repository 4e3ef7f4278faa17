//! All tokens that a text begins with.

use super::vocabulary::{TokenType, Vocabulary};

/// Token ids in the order of their texts. A search narrows the range of tokens that share the bytes seen so
/// far, byte by byte; it needs no memory but the ids.
pub(super) struct PrefixSearch {
    sorted: Vec<u32>,
    /// Where the tokens that begin with each byte begin, and where the last end.
    first_byte: Box<[u32; 257]>,
}

impl PrefixSearch {
    /// Over the tokens of the wanted types.
    pub fn new(vocabulary: &Vocabulary, wanted: impl Fn(TokenType) -> bool) -> PrefixSearch {
        let table = vocabulary.table();
        let mut sorted: Vec<u32> = table
            .iter()
            .filter(|(id, text)| !text.is_empty() && vocabulary.token_type(*id).is_some_and(&wanted))
            .map(|(id, _)| id)
            .collect();
        sorted.sort_unstable_by_key(|&id| table.text(id));
        let mut first_byte = Box::new([0; 257]);
        let mut next = 0;
        for (byte, begin) in first_byte.iter_mut().enumerate() {
            let begins_before = |id: &&u32| {
                let first = table.text(**id).and_then(|text| text.bytes().next());
                first.is_some_and(|first| usize::from(first) < byte)
            };
            next += sorted[next..].iter().take_while(begins_before).count();
            *begin = next as u32;
        }
        PrefixSearch { sorted, first_byte }
    }

    /// Calls `visit` with the id and the length of each token that `text` begins with, shortest first.
    pub fn visit(&self, vocabulary: &Vocabulary, text: &str, mut visit: impl FnMut(u32, usize)) {
        let Some(&first) = text.as_bytes().first() else {
            return;
        };
        let first = usize::from(first);
        let mut range = &self.sorted[self.first_byte[first] as usize..self.first_byte[first + 1] as usize];
        let bytes_of = |id: &u32| vocabulary.table().text(*id).unwrap_or_default().as_bytes();
        for (depth, &byte) in text.as_bytes().iter().enumerate() {
            if depth > 0 {
                // All tokens in the range are longer than `depth` and share the bytes before it.
                let low = range.partition_point(|id| bytes_of(id)[depth] < byte);
                let high = low + range[low..].partition_point(|id| bytes_of(id)[depth] == byte);
                range = &range[low..high];
            }
            // The token that ends here sorts before those that go on.
            let Some((shortest, longer)) = range.split_first() else {
                return;
            };
            if bytes_of(shortest).len() == depth + 1 {
                visit(*shortest, depth + 1);
                range = longer;
            }
        }
    }
}
