//! Tokenizers of whole GGUF files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod tokenizer_common;

use mantle::format::container::{Container, LoadMode};
use mantle::text::tokenizer::{Special, Tokenizer, from_metadata};
use std::path::Path;
use std::sync::Arc;
use tokenizer_common::*;

fn open(path: impl AsRef<Path>) -> Arc<dyn Tokenizer> {
    let container = Container::open(path.as_ref(), LoadMode::Map).unwrap();
    from_metadata(container.metadata()).unwrap()
}

#[test]
fn the_tiny_models_have_tokenizers() {
    for name in [
        "tiny-qwen3-F32",
        "tiny-qwen3-Q8_0",
        "tiny-gemma-embedding-F32",
        "tiny-gemma-embedding-Q8_0",
    ] {
        let tokenizer = open(format!("{}/tests/data/{name}.gguf", env!("CARGO_MANIFEST_DIR")));
        assert_eq!(tokenizer.vocabulary_size(), 512);
        assert_eq!(tokenizer.special(Special::Bos), Some(2));
        let ids = tokenizer.encode("a bé 你\n", ADD).unwrap();
        assert_eq!((ids[0], ids.last()), (2, Some(&1)));
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "a bé 你\n".as_bytes());
    }
}

#[test]
#[ignore = "needs MANTLE_SMOLLM2"]
fn the_file_of_smollm2_gives_the_same_ids_as_the_committed_vocabulary() {
    let file = open(std::env::var("MANTLE_SMOLLM2").expect("MANTLE_SMOLLM2 is not set"));
    let committed = from_metadata(&smollm2()).unwrap();
    assert_eq!(file.vocabulary_size(), committed.vocabulary_size());
    for id in 0..file.vocabulary_size() as u32 {
        assert_eq!(file.token_text(id), committed.token_text(id));
        assert_eq!(file.is_control(id), committed.is_control(id));
    }
    assert_lines(&*file, PLAIN, &lines("smollm2"));
}
