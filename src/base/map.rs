//! Files mapped into memory, read only.

use std::fs::File;
use std::io;

/// A whole file as bytes.
///
/// The pages belong to the file. While a map lives, nobody may truncate the file: touching a page that is
/// no longer backed raises `SIGBUS`, which no library can turn into an error. Replacing a file by renaming
/// another over it is harmless, since the map keeps the old one. Where files may be cut while they are in
/// use, read them with plain reads instead (`LoadMode::Read`).
pub struct Map {
    pages: memmap2::Mmap,
}

impl Map {
    /// Maps `file`, which must not be empty.
    pub fn open(file: &File) -> io::Result<Map> {
        // SAFETY: the map is read only and private to this value. That no other process shrinks or rewrites
        // the file meanwhile is asked of the caller in the documentation of this type.
        let pages = unsafe { memmap2::Mmap::map(file)? };
        Ok(Map { pages })
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.pages
    }

    /// Tells the system that the pages wholly inside `start..start + count` are not needed now, so that they
    /// stop counting as memory of this process. They stay readable and are fetched again when touched.
    /// A range outside the file, or one that fills no page, does nothing.
    pub fn release(&self, start: usize, count: usize) {
        #[cfg(unix)]
        {
            let page = page_size();
            let Some(end) = start.checked_add(count) else {
                return;
            };
            if end > self.pages.len() {
                return;
            }
            let first = start.next_multiple_of(page);
            let last = end - end % page;
            if first >= last {
                return;
            }
            // SAFETY: the range lies inside the map, whose pages are clean copies of a file: dropping them
            // loses nothing, the next access reads the file again. A refusal costs memory only.
            unsafe {
                libc::madvise(
                    self.pages.as_ptr().add(first).cast_mut().cast(),
                    last - first,
                    libc::MADV_DONTNEED,
                );
            }
        }
        #[cfg(not(unix))]
        let _ = (start, count);
    }
}

#[cfg(unix)]
fn page_size() -> usize {
    // SAFETY: asks for a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size)
        .ok()
        .filter(|size| size.is_power_of_two())
        .unwrap_or(65_536)
}
