//! Makes sled's flush a true fdatasync: the crate's one `unsafe` item.
//!
//! sled 0.34.7 ends each write of its log with `sync_file_range(2)` (`pagecache/iobuf.rs`, read 2026-11).
//! That call starts and awaits writeback of file pages; it flushes neither the file's metadata (the length
//! that an append has just changed) nor the drive's volatile cache: "This system call does not flush disk
//! write caches and thus does not provide any data integrity on systems with volatile disk write caches"
//! (its manual page). A power cut therefore loses data that `flush()` has confirmed.
//!
//! A symbol that the executable defines takes precedence over the C library's. So this crate defines
//! `sync_file_range` itself, runs `fdatasync(2)` there, and sled's own ordering holds: what it counts as stable
//! is on the disk, and an error returns through `flush()`. Nothing else in the process calls it.
//! [`replaced`] moves with each call, which is how start-up proves that the replacement is in force.

use std::sync::atomic::{AtomicU64, Ordering};

static REPLACED: AtomicU64 = AtomicU64::new(0);
static FLUSHES: AtomicU64 = AtomicU64::new(0);

/// How often the replacement has run in this process.
#[must_use]
pub fn replaced() -> u64 {
    REPLACED.load(Ordering::Acquire)
}

/// How often this process has flushed a file to its device: the store's by the replacement, and the log's.
#[must_use]
pub fn flushes() -> u64 {
    replaced() + FLUSHES.load(Ordering::Acquire)
}

/// Stands in for the C library's function of this name: flushes all of `fd`'s data, and the metadata needed to
/// read it back, to the device. Returns 0, or -1 with `errno` set, as the original does.
#[expect(
    unsafe_code,
    reason = "the symbol must be exported under its C name, and fdatasync takes a raw descriptor"
)]
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(
    fd: libc::c_int,
    _offset: libc::off64_t,
    _bytes: libc::off64_t,
    _flags: libc::c_uint,
) -> libc::c_int {
    REPLACED.fetch_add(1, Ordering::AcqRel);
    loop {
        // SAFETY: fdatasync takes any integer; one that is no open descriptor gives EBADF.
        let result = unsafe { libc::fdatasync(fd) };
        let interrupted = result == -1
            && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
        if !interrupted {
            return result;
        }
    }
}

/// Flushes a file's data, and the metadata needed to read it back, to the device.
///
/// # Errors
/// What fdatasync(2) returns. Final: a second call returns OK with nothing written (seen on ext4).
pub fn fdatasync(file: &std::fs::File) -> std::io::Result<()> {
    FLUSHES.fetch_add(1, Ordering::AcqRel);
    file.sync_data()
}
