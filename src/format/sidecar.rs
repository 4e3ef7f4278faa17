//! The small text files beside a model's weights: configuration and tokenizer.

use super::cursor::quoted;
use super::source::{LoadMode, Source};
use crate::base::error::{Error, Result, Status, Within};
use std::path::{Component, Path, PathBuf};

/// The largest known tokenizer.json has 35 MB.
const LONGEST: u64 = 128 << 20;
/// For files that become a tree in memory, which takes up to 40 times the text. Real ones have a few kilobytes.
const LONGEST_TREE: u64 = 4 << 20;

/// The folder of a model, for the small files beside its weights.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Folder {
        // The parent of a bare file name is "", which names no folder.
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        Folder {
            path: path.to_owned(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The text of the file `name`, a path below this folder; `None` when there is none.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        text(&self.below(name)?, LONGEST)
    }

    /// The file `name` as a JSON tree; `None` when there is none.
    pub(super) fn json(&self, name: &str) -> Result<Option<serde_json::Value>> {
        let path = self.below(name)?;
        let Some(text) = text(&path, LONGEST_TREE)? else {
            return Ok(None);
        };
        let tree =
            serde_json::from_str(&text).map_err(|error| Error::format(format!("not valid JSON: {error}")));
        tree.map(Some).within(|| path.display().to_string())
    }

    /// Names come from other files of the model, too, and must not lead out of its folder.
    pub(super) fn below(&self, name: &str) -> Result<PathBuf> {
        let inside = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !inside || name.is_empty() {
            return Err(Error::invalid(format!(
                "found {}, expected the name of a file in the model's folder",
                quoted(name)
            )));
        }
        Ok(self.path.join(name))
    }
}

/// The text of a file of at most `longest` bytes; `None` when there is none.
pub(super) fn text(path: &Path, longest: u64) -> Result<Option<String>> {
    let place = || path.display().to_string();
    let source = match Source::open(path, LoadMode::Read) {
        Err(error) if error.status() == Status::NotFound => return Ok(None),
        opened => opened.within(place)?,
    };
    if source.size() > longest {
        return Err(Error::format(format!(
            "found {} bytes, expected at most {longest}",
            source.size()
        ))
        .within(place()));
    }
    let mut bytes = Vec::new();
    source.read(0, source.size() as usize, &mut bytes).within(place)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => Err(Error::format(format!(
            "byte {} is not UTF-8 text",
            error.utf8_error().valid_up_to()
        ))
        .within(place())),
    }
}
