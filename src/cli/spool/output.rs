//! Where records are written: a file of one's own, whole or not at all, or standard output.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use tempfile::NamedTempFile;

use super::super::show;

/// See the module.
pub(super) enum Output {
    /// Standard output.
    Stdout(BufWriter<io::Stdout>),
    /// A file beside the one to write, which it replaces at the end (mode 0600).
    File(BufWriter<NamedTempFile>, PathBuf),
}

impl Output {
    pub(super) fn stdout() -> Output {
        Output::Stdout(BufWriter::new(io::stdout()))
    }

    /// # Errors
    /// When nothing can be written there, or it lies in the `spool` itself.
    pub(super) fn file(path: &Path, spool: &Path) -> anyhow::Result<Output> {
        let failed = || format!("write {}", path.display());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let inside = fs::canonicalize(folder)
            .and_then(|folder| Ok(folder.starts_with(fs::canonicalize(spool)?)));
        if inside.with_context(failed)? {
            return Err(anyhow!("{} lies in the spool: name a file elsewhere", path.display()));
        }
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(anyhow!("{} is no file: redirect standard output to it", path.display()));
        }
        let file = NamedTempFile::new_in(folder).with_context(failed)?;
        Ok(Output::File(BufWriter::new(file), path.to_owned()))
    }

    /// Lets `write` write. A reader of standard output that has seen enough, such as `head`, ends the program as it
    /// should: with nothing more to say.
    ///
    /// # Errors
    /// What `write` returns.
    pub(super) fn write<T>(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
    ) -> anyhow::Result<T> {
        let written = match self {
            Output::Stdout(out) => write(out),
            Output::File(out, _) => write(out),
        };
        written.context("write the records")
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// The file that was there before then stays.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Output::Stdout(mut out) => out.flush().context("write the records"),
            Output::File(out, path) => {
                let failed = || format!("write {}", path.display());
                let file = out.into_inner().map_err(io::IntoInnerError::into_error);
                let file = file.with_context(failed)?;
                file.as_file().sync_all().with_context(failed)?;
                file.persist(&path).with_context(failed)?;
                show::note(&format!("written to {}", path.display()));
                Ok(())
            }
        }
    }
}
