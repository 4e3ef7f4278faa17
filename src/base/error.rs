//! One error type for the whole library: a status for programs, a sentence for people.

use std::fmt;

/// Error classes. The numbers are part of the C ABI: never reused, never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Status {
    /// Success.
    Ok = 0,
    /// An argument is NULL, of a wrong size or out of range.
    InvalidArgument = -1,
    /// A file, key, tensor or sequence does not exist.
    NotFound = -2,
    /// The operating system refused to read or write.
    Io = -3,
    /// A file breaks the rules of its format.
    Format = -4,
    /// The file is valid, but asks for something this library does not do.
    Unsupported = -5,
    /// Memory could not be had, or a memory limit would be exceeded.
    NoMemory = -6,
    /// An output buffer is too small; the needed size was written.
    BufferTooSmall = -7,
    /// A sequence does not fit into the session's context.
    ContextFull = -8,
    /// The caller cancelled the call.
    Cancelled = -9,
    /// The handle is in use by another thread.
    Busy = -10,
    /// A defect inside the library was caught; the handle is poisoned.
    Panic = -11,
    /// Header and library do not match.
    AbiMismatch = -12,
}

impl Status {
    /// The stable name, as in `mantle_status_name`.
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "OK",
            Status::InvalidArgument => "INVALID_ARGUMENT",
            Status::NotFound => "NOT_FOUND",
            Status::Io => "IO",
            Status::Format => "FORMAT",
            Status::Unsupported => "UNSUPPORTED",
            Status::NoMemory => "NO_MEMORY",
            Status::BufferTooSmall => "BUFFER_TOO_SMALL",
            Status::ContextFull => "CONTEXT_FULL",
            Status::Cancelled => "CANCELLED",
            Status::Busy => "BUSY",
            Status::Panic => "PANIC",
            Status::AbiMismatch => "ABI_MISMATCH",
        }
    }
}

/// What went wrong: the class, a sentence that says what was found and what was expected,
/// and the place (file, tensor, field), outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    status: Status,
    message: String,
    context: Vec<String>,
}

/// The library's result type.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of class `status` with a full sentence.
    pub fn new(status: Status, message: impl Into<String>) -> Error {
        Error {
            status,
            message: message.into(),
            context: Vec::new(),
        }
    }

    /// A wrong argument.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Status::InvalidArgument, message)
    }

    /// A file that breaks the rules of its format.
    pub fn format(message: impl Into<String>) -> Error {
        Error::new(Status::Format, message)
    }

    /// A valid request that this library does not serve.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(Status::Unsupported, message)
    }

    /// Something that does not exist.
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(Status::NotFound, message)
    }

    /// Memory that could not be had.
    pub fn no_memory(message: impl Into<String>) -> Error {
        Error::new(Status::NoMemory, message)
    }

    /// An operating system error, with what was being done.
    pub fn io(doing: &str, error: &std::io::Error) -> Error {
        let status = if error.kind() == std::io::ErrorKind::NotFound {
            Status::NotFound
        } else {
            Status::Io
        };
        Error::new(status, format!("{doing}: {error}"))
    }

    /// Adds a place around the error, such as the file that was being read.
    pub fn within(mut self, place: impl Into<String>) -> Error {
        self.context.insert(0, place.into());
        self
    }

    /// The class.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The sentence, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The place: file, tensor or field, outermost first, joined by `: `. May be empty.
    pub fn context(&self) -> String {
        self.context.join(": ")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in &self.context {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Adds a place to the error of a result.
pub trait Within<T> {
    /// Like [`Error::within`]; the place is computed only when there is an error.
    fn within<P: Into<String>>(self, place: impl FnOnce() -> P) -> Result<T>;
}

impl<T> Within<T> for Result<T> {
    fn within<P: Into<String>>(self, place: impl FnOnce() -> P) -> Result<T> {
        self.map_err(|error| error.within(place()))
    }
}
