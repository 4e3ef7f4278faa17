//! The sizes of a core's data caches, by which the kernels cut their work.

/// The data caches that a core has to itself, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    /// First level.
    pub first: usize,
    /// Second level.
    pub second: usize,
}

/// Sizes that are believed, in bytes: others are mistakes of a virtual machine.
const BELIEVED: [std::ops::RangeInclusive<usize>; 2] = [8 << 10..=1 << 20, 64 << 10..=64 << 20];

impl Caches {
    /// What is assumed where the system does not say: small caches that nearly every processor has.
    pub const ASSUMED: Caches = Caches {
        first: 32 << 10,
        second: 512 << 10,
    };

    /// Those of the first processor as the system knows them; assumed sizes for what it does not say. Where cores differ,
    /// the first one is usually the smallest.
    pub fn detect() -> Caches {
        Caches::read("/sys/devices/system/cpu/cpu0/cache")
    }

    /// From a folder with `index0/level`, `index0/type`, `index0/size` and so on (the kernel's ABI/stable/sysfs-devices-system-cpu).
    fn read(folder: &str) -> Caches {
        let mut caches = Caches::ASSUMED;
        for index in 0..8 {
            let field = |name| std::fs::read_to_string(format!("{folder}/index{index}/{name}"));
            let (Ok(level), Ok(kind), Ok(size)) = (field("level"), field("type"), field("size")) else {
                continue;
            };
            let Some(size) = bytes_of(size.trim()).filter(|_| kind.trim() != "Instruction") else {
                continue;
            };
            match level.trim() {
                "1" if BELIEVED[0].contains(&size) => caches.first = size,
                "2" if BELIEVED[1].contains(&size) => caches.second = size,
                _ => {}
            }
        }
        caches
    }
}

/// Bytes from text such as "48K".
fn bytes_of(text: &str) -> Option<usize> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_nonsense_is_not_believed() {
        let folder = std::env::temp_dir().join(format!("mantle-caches-{}", std::process::id()));
        let write = |index: usize, level: &str, kind: &str, size: &str| {
            let folder = folder.join(format!("index{index}"));
            std::fs::create_dir_all(&folder).unwrap();
            for (name, text) in [("level", level), ("type", kind), ("size", size)] {
                std::fs::write(folder.join(name), format!("{text}\n")).unwrap();
            }
        };
        let read = || Caches::read(folder.to_str().unwrap());
        assert_eq!(read(), Caches::ASSUMED, "no such folder");
        write(0, "1", "Data", "48K");
        write(1, "1", "Instruction", "64K");
        write(2, "2", "Unified", "2M");
        write(3, "3", "Unified", "32768K");
        assert_eq!(
            read(),
            Caches {
                first: 48 << 10,
                second: 2 << 20
            }
        );
        write(0, "1", "Data", "0K");
        write(2, "2", "Unified", "99999999999999999999K");
        assert_eq!(read(), Caches::ASSUMED, "sizes that no cache has");
        write(0, "1", "Data", "");
        write(2, "two", "Unified", "1M");
        assert_eq!(read(), Caches::ASSUMED, "no numbers");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn this_machine_has_caches() {
        let caches = Caches::detect();
        assert!(BELIEVED[0].contains(&caches.first) && BELIEVED[1].contains(&caches.second));
    }
}
