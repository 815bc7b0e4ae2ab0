//! [`Spool`]: a temporary file for the contents of all files until the disk's size is known. Each content begins at a
//! block boundary.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use super::{
    error::LayerError,
    tar::{Input, Reader},
};
use crate::image::{Error, ext4_size::BLOCK_LEN};

pub(super) struct Spool {
    out: BufWriter<File>,
    length: u64,
    buffer: Vec<u8>,
}

impl Spool {
    /// Creates an empty spool in `scratch`.
    pub(super) fn new(scratch: &Path) -> Result<Spool, Error> {
        const BUFFER: usize = 1024 * 1024;
        let file =
            tempfile::tempfile_in(scratch).map_err(Error::io("create a file in", scratch))?;
        Ok(Spool {
            out: BufWriter::with_capacity(BUFFER, file),
            length: 0,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Appends the bytes of the reader's entry, and returns the offset of the first.
    pub(super) fn receive(&mut self, reader: &mut Reader<impl Input>) -> Result<u64, LayerError> {
        let start = self.length;
        loop {
            match reader.read(&mut self.buffer)? {
                0 => break,
                read => {
                    let written = self.out.write_all(&self.buffer[..read]);
                    written.map_err(LayerError::Spool)?;
                    self.length += read as u64;
                }
            }
        }
        let padded = self.length.next_multiple_of(BLOCK_LEN);
        let zeros = (padded - self.length) as usize;
        let written = self.out.write_all(&[0; BLOCK_LEN as usize][..zeros]);
        written.map_err(LayerError::Spool)?;
        self.length = padded;
        Ok(start)
    }

    /// Writes out the buffer, and returns the file.
    pub(super) fn finish(self) -> std::io::Result<File> {
        self.out.into_inner().map_err(|error| error.into_error())
    }
}
