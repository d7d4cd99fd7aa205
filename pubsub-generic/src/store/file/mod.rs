//! A store in one file, by way of redb.
#![allow(
    clippy::result_large_err,
    reason = "redb's own error, for the short way to ours"
)]

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Database, ReadableTable as _, StorageBackend, TableDefinition, TableHandle as _};

use super::{Change, Record, SessionStore, StoreError, StoreErrorKind};

/// The only table. Its name says how the records lie in it.
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("pubsub-session-1");
/// What a file of redb begins with.
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Pages kept in memory. What is written is read again only by the next process, so little will do.
const CACHE: usize = 1024 * 1024;
/// A file below this is not worth compacting.
const COMPACT_ABOVE: u64 = 8 * 1024 * 1024;

/// Keeps a session in a file, so that it survives the process and, by default, a power cut.
///
/// The file is an embedded database ([redb](https://www.redb.org)): each group of changes is one transaction, of which a later
/// process sees all or nothing. It is locked for as long as the store lives, and readable by its owner alone where the
/// system knows owners (Unix). Payloads lie in it as they are.
///
/// ```no_run
/// use std::time::Duration;
/// use pubsub_core::OfflinePolicy;
/// use pubsub_generic::{FileSessionStore, MqttOptions, MqttProvider, SessionMode};
///
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let store = FileSessionStore::open("/var/lib/greenhouse/session.redb")?;
/// let provider = MqttProvider::new(
///     MqttOptions::new("wss://broker.example/mqtt")
///         .client_id("greenhouse-7")
///         .session(SessionMode::Persistent { expiry: Duration::from_secs(86_400) })
///         .offline(OfflinePolicy::Queue)
///         .store(store),
/// )?;
/// for publish in provider.take_restored() {
///     println!("from last time: a message on {}", publish.topic);
/// }
/// # Ok(()) }
/// ```
pub struct FileSessionStore {
    path: PathBuf,
    options: FileStoreOptions,
    /// `None` after a failure, until it is opened again: redb does not trust a file that has failed it.
    database: Mutex<Option<Database>>,
}

/// How a [`FileSessionStore`] treats its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileStoreOptions {
    /// When what is written is forced to the disk. Default [`SyncPolicy::EachGroup`].
    pub sync: SyncPolicy,
    /// How large the file may become, in bytes. Default 256 MiB, many times what the default
    /// [queue](crate::MqttOptions::queue) of 16 MiB takes up. The file grows in steps of up to its own size, so count on half.
    /// A group that does not fit fails with [`StoreErrorKind::Full`]. It has some 3 MiB from the start.
    pub max_file_bytes: u64,
}

/// When what is written is forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Before a group counts as stored: it survives a power cut, if the disk keeps its word.
    EachGroup,
    /// Never; the system does it when it likes. What is stored survives the end of the process, by `SIGKILL` too. A
    /// power cut may damage the file, which is then found out when it is opened.
    Never,
}

impl Default for FileStoreOptions {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::EachGroup,
            max_file_bytes: 256 * 1024 * 1024,
        }
    }
}

impl FileSessionStore {
    /// Opens the store in this file, or makes one if there is no such file. Blocks.
    ///
    /// # Errors
    ///
    /// [`Locked`](StoreErrorKind::Locked) if it is open already, here or elsewhere; [`Foreign`](StoreErrorKind::Foreign) if
    /// the file is something else; [`Corrupt`](StoreErrorKind::Corrupt) if it is damaged, cut short or empty. The file is
    /// left as it is then: to begin anew, remove it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, FileStoreOptions::default())
    }

    /// As [`open`](Self::open), with these options.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(
        path: impl AsRef<Path>,
        options: FileStoreOptions,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let database = match open_file(&path, Existing::Must) {
            Ok(file) => open_database(file, options)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(&path, options)?,
            Err(error) => return Err(io_error(error)),
        };
        Ok(Self {
            path,
            options,
            database: Mutex::new(Some(database)),
        })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One transaction.
    fn put(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(TABLE)?;
                for Change { key, value } in changes {
                    match value {
                        Some(value) => drop(table.insert(&key[..], &value[..])?),
                        None => drop(table.remove(&key[..])?),
                    }
                }
            }
            Ok(transaction.commit()?)
        })
    }

    /// Does this with the database. What fails closes it; the next call opens it again, and sees what is really there.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let mut slot = self.lock();
        let mut database = match slot.take() {
            Some(database) => database,
            None => {
                let file = open_file(&self.path, Existing::Must).map_err(io_error)?;
                open_database(file, self.options)?
            }
        };
        let done = guarded(|| {
            let done = work(&mut database).map_err(store_error);
            (database, done)
        });
        let (database, done) = done?;
        if done.is_ok() {
            *slot = Some(database);
        } else {
            // Closing a file that has failed may well panic, too.
            let _ = guarded(|| drop(database));
        }
        done
    }
}

impl SessionStore for FileSessionStore {
    fn load(&self) -> Result<Vec<Record>, StoreError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(TABLE)?;
            let records = table.iter()?.map(|entry| {
                let (key, value) = entry?;
                Ok(Record {
                    key: Bytes::copy_from_slice(key.value()),
                    value: Bytes::copy_from_slice(value.value()),
                })
            });
            records.collect()
        })
    }

    fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        match self.put(changes) {
            Err(error) if error.kind() == StoreErrorKind::Full => {
                // What the last transactions have freed can be used by the one after the next.
                self.put(&[])?;
                self.put(changes)
            }
            done => done,
        }
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            transaction.open_table(TABLE)?.retain(|_, _| false)?;
            Ok(transaction.commit()?)
        })
    }

    /// Where most of a large file is unused.
    fn compact(&self) -> Result<(), StoreError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let stats = transaction.stats()?;
            transaction.abort()?;
            let allocated = stats.allocated_pages() * stats.page_size() as u64;
            if allocated > COMPACT_ABOVE && stats.stored_bytes() < allocated / 4 {
                match database.compact() {
                    Ok(_) => {}
                    Err(redb::CompactionError::Storage(error)) => return Err(error.into()),
                    // Somebody reads, which nobody can; and it need not be now.
                    Err(_) => {}
                }
            }
            Ok(())
        })
    }
}

impl fmt::Debug for FileSessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSessionStore")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Whether a file has to be there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Must,
    May,
}

fn open_file(path: &Path, existing: Existing) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.create(existing == Existing::May).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the file under another name and puts it in its place when it is whole: so an empty or a half file there is never
/// one of ours that was interrupted, but one that was damaged.
fn create(path: &Path, options: FileStoreOptions) -> Result<Database, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let file = open_file(&new, Existing::May).map_err(io_error)?;
    let emptied = file.try_clone().map_err(io_error)?;
    let backend = Backend::lock(file, options)?;
    if path.exists() {
        // Somebody was faster; what we have locked is a name of the past.
        drop(backend);
        let _ = std::fs::remove_file(&new);
        let file = open_file(path, Existing::Must).map_err(io_error)?;
        return open_database(file, options);
    }
    // What an interrupted attempt has left.
    emptied.set_len(0).map_err(io_error)?;
    guarded(|| {
        let database = redb::Builder::new()
            .set_cache_size(CACHE)
            // The format of later versions, too.
            .create_with_file_format_v3(true)
            .create_with_backend(backend)
            .map_err(|error| store_error(error.into()))?;
        let made = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(TABLE)?;
            Ok(transaction.commit()?)
        };
        made().map_err(store_error)?;
        std::fs::rename(&new, path).map_err(io_error)?;
        sync_directory(path, options).map_err(io_error)?;
        Ok(database)
    })?
}

/// The name of a new file is in its directory, which has to reach the disk as well.
fn sync_directory(path: &Path, options: FileStoreOptions) -> io::Result<()> {
    if options.sync == SyncPolicy::Never || !cfg!(unix) {
        return Ok(());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

/// Opens a file that is there, and checks all of it.
fn open_database(mut file: File, options: FileStoreOptions) -> Result<Database, StoreError> {
    let mut start = [0; MAGIC.len()];
    match file.read_exact(&mut start) {
        Ok(()) if start == MAGIC => {}
        Ok(()) => return Err(StoreErrorKind::Foreign.into()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(StoreErrorKind::Corrupt.into());
        }
        Err(error) => return Err(io_error(error)),
    }
    let backend = Backend::lock(file, options)?;
    guarded(|| {
        let mut database = redb::Builder::new()
            .set_cache_size(CACHE)
            .create_with_backend(backend)
            .map_err(|error| store_error(error.into()))?;
        // Every page has a checksum, but only this looks at them all.
        let is_sound = database
            .check_integrity()
            .map_err(|error| store_error(error.into()))?;
        if !is_sound {
            return Err(StoreErrorKind::Corrupt.into());
        }
        let is_ours = || -> Result<bool, redb::Error> {
            let transaction = database.begin_read()?;
            let is_ours = transaction
                .list_tables()?
                .any(|table| table.name() == TABLE.name());
            Ok(is_ours)
        };
        if !is_ours().map_err(store_error)? {
            return Err(StoreErrorKind::Foreign.into());
        }
        Ok(database)
    })?
}

/// redb checks what it reads, but panics at some of what it does not expect in a damaged file.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| StoreErrorKind::Corrupt.into())
}

/// The file, with our bound and our way of syncing.
#[derive(Debug)]
struct Backend {
    file: FileBackend,
    options: FileStoreOptions,
}

impl Backend {
    fn lock(file: File, options: FileStoreOptions) -> Result<Self, StoreError> {
        let file = FileBackend::new(file).map_err(|error| store_error(error.into()))?;
        Ok(Self { file, options })
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        // A damaged file may name a page of any size.
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| self.file.len().is_ok_and(|file| end > file)) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.options.max_file_bytes && len > self.file.len()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.set_len(len)
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        match self.options.sync {
            SyncPolicy::Never => Ok(()),
            // Whatever is missing now may be anything that was written before, so "full" would promise too much.
            SyncPolicy::EachGroup => self.file.sync_data(eventual).map_err(io::Error::other),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
}

fn io_error(error: io::Error) -> StoreError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Io,
    };
    StoreError::new(kind).with_source(error)
}

fn store_error(error: redb::Error) -> StoreError {
    let kind = match error {
        redb::Error::Io(error) => return io_error(error),
        redb::Error::DatabaseAlreadyOpen => return StoreErrorKind::Locked.into(),
        redb::Error::UpgradeRequired(_) => StoreErrorKind::Version,
        redb::Error::TableDoesNotExist(_) => StoreErrorKind::Foreign,
        redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::RepairAborted => StoreErrorKind::Corrupt,
        redb::Error::ValueTooLarge(_) => StoreErrorKind::Full,
        _ => StoreErrorKind::Io,
    };
    StoreError::new(kind).with_source(error)
}

#[cfg(test)]
mod tests;
