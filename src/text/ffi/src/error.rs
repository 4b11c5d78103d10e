//! Errors as the C++ side knows them: a status code and one sentence.

/// The values of quire::StatusCode that this crate returns.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(i32)]
pub enum Code {
    Internal = 1,
    InvalidArgument = 2,
    DataLoss = 4,
    Unsupported = 5,
    ResourceExhausted = 6,
}

#[derive(Clone, Debug)]
pub struct Error {
    pub code: Code,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error { code, message: message.into() }
    }
}

pub fn internal(message: impl Into<String>) -> Error {
    Error::new(Code::Internal, message)
}

pub fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidArgument, message)
}

pub fn data_loss(message: impl Into<String>) -> Error {
    Error::new(Code::DataLoss, message)
}

pub fn unsupported(message: impl Into<String>) -> Error {
    Error::new(Code::Unsupported, message)
}
