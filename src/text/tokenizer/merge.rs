//! Byte pair merging: the loop that both gpt2-family BPE and SentencePiece BPE run.
//!
//! Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units"
//! (2016). Of all neighbouring pairs that may merge, the one of the lowest rank merges first,
//! and of equal ranks the leftmost. A heap holds the candidates, so that a run of n symbols
//! takes O(n log n).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Marks the end of the list.
const NONE: u32 = u32::MAX;

/// One symbol: a part of the text that merged to one token so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// Byte offset in the text.
    pub start: u32,
    /// Length in bytes; 0 once it was merged into the symbol on its left.
    pub length: u32,
    /// What the caller tells symbols apart by, usually a token id.
    pub id: u32,
    previous: u32,
    next: u32,
}

/// Lowest rank first, then the leftmost; the length tells whether the pair still stands.
type Candidate = Reverse<(u32, u32, u32, u32)>;

/// The buffers of a merge, kept from one word to the next.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Candidate>,
}

impl Merger {
    /// Starts a new word.
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Adds a symbol at the end of the word.
    pub fn push(&mut self, start: u32, length: u32, id: u32) {
        let index = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = index;
        }
        self.symbols.push(Symbol {
            start,
            length,
            id,
            previous: index.checked_sub(1).unwrap_or(NONE),
            next: NONE,
        });
    }

    /// Merges until no pair is left that `rank` knows. `rank` gives the rank of a pair of
    /// neighbours and the id of the symbol that it merges to.
    pub fn run(&mut self, mut rank: impl FnMut(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        for left in 1..self.symbols.len() as u32 {
            self.consider(left - 1, &mut rank);
        }
        while let Some(Reverse((_, left, length, id))) = self.queue.pop() {
            let first = self.symbols[left as usize];
            if first.length == 0 || first.next == NONE {
                continue;
            }
            let second = self.symbols[first.next as usize];
            // Symbols only grow, so a pair of the same length at the same place is the same pair.
            if first.length + second.length != length {
                continue;
            }
            self.symbols[first.next as usize].length = 0;
            let merged = &mut self.symbols[left as usize];
            merged.length = length;
            merged.id = id;
            merged.next = second.next;
            if second.next != NONE {
                self.symbols[second.next as usize].previous = left;
            }
            if first.previous != NONE {
                self.consider(first.previous, &mut rank);
            }
            self.consider(left, &mut rank);
        }
    }

    /// Queues the pair of the symbol at `left` and its neighbour.
    fn consider(&mut self, left: u32, rank: &mut impl FnMut(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let first = &self.symbols[left as usize];
        if first.next == NONE {
            return;
        }
        let second = &self.symbols[first.next as usize];
        if let Some((rank, id)) = rank(first, second) {
            let length = first.length + second.length;
            self.queue.push(Reverse((rank, left, length, id)));
        }
    }

    /// The symbols that are left, in the order of the text.
    pub fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.length > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, without a heap: search all pairs for the best one, again and again.
    fn naive(mut ids: Vec<u32>, rank: &impl Fn(u32, u32) -> Option<(u32, u32)>) -> Vec<u32> {
        loop {
            let best = ids
                .windows(2)
                .enumerate()
                .filter_map(|(i, pair)| rank(pair[0], pair[1]).map(|(r, id)| (r, i, id)))
                .min();
            let Some((_, i, id)) = best else { return ids };
            ids[i] = id;
            ids.remove(i + 1);
        }
    }

    #[test]
    fn heap_gives_what_the_definition_gives() {
        let mut state = 1u64;
        let mut random = move |below: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for _ in 0..2000 {
            // Merges over an alphabet of 3; each makes a new symbol, or one that stands already.
            let mut merges = std::collections::HashMap::new();
            for new in 3..3 + random(12) as u32 {
                let pair = (random(new.into()) as u32, random(new.into()) as u32);
                merges.entry(pair).or_insert((merges_rank(new), new));
            }
            let rank = |a: u32, b: u32| merges.get(&(a, b)).copied();
            let word: Vec<u32> = (0..random(40)).map(|_| random(3) as u32).collect();
            let mut merger = Merger::default();
            for (i, &id) in word.iter().enumerate() {
                merger.push(i as u32, 1, id);
            }
            merger.run(|a, b| rank(a.id, b.id));
            let found: Vec<u32> = merger.symbols().map(|s| s.id).collect();
            assert_eq!(found, naive(word, &rank));
        }
    }

    /// Some ranks are equal, so that the order of equal ranks is tested too.
    fn merges_rank(new: u32) -> u32 {
        new / 2
    }
}
