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
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;

    type State = BTreeMap<Vec<u8>, Vec<u8>>;

    /// What one writes into the file, group by group.
    fn groups() -> Vec<Vec<Change>> {
        let change = |key: u8, value: Option<usize>| Change {
            key: Bytes::copy_from_slice(&[key]),
            value: value.map(|len| vec![key; len].into()),
        };
        vec![
            vec![change(0, Some(3))],
            (1..20).map(|key| change(key, Some(200))).collect(),
            vec![change(1, None), change(2, Some(5)), change(20, Some(9000))],
            (1..20).map(|key| change(key, None)).collect(),
            vec![change(21, Some(1))],
        ]
    }

    /// What is in it after none of them, the first, the second, and so on.
    fn states() -> Vec<State> {
        let mut state = State::new();
        let mut states = vec![state.clone()];
        for group in groups() {
            for Change { key, value } in group {
                match value {
                    Some(value) => drop(state.insert(key.to_vec(), value.to_vec())),
                    None => drop(state.remove(&key[..])),
                }
            }
            states.push(state.clone());
        }
        states
    }

    fn state(store: &FileSessionStore) -> Result<State, StoreErrorKind> {
        let records = store.load().map_err(|error| error.kind())?;
        let pairs = records
            .into_iter()
            .map(|record| (record.key.to_vec(), record.value.to_vec()));
        Ok(pairs.collect())
    }

    fn read(path: &Path) -> Result<State, StoreErrorKind> {
        let options = FileStoreOptions {
            sync: SyncPolicy::Never,
            ..FileStoreOptions::default()
        };
        let store = FileSessionStore::open_with(path, options);
        state(&store.map_err(|error| error.kind())?)
    }

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn what_was_written_is_there_when_it_is_opened_again() {
        let directory = directory();
        let path = directory.path().join("session");
        for (group, expected) in groups().iter().zip(states().iter().skip(1)) {
            let store = FileSessionStore::open(&path).unwrap();
            store.write(group).unwrap();
            assert_eq!(state(&store).as_ref(), Ok(expected));
            drop(store);
            assert_eq!(read(&path).as_ref(), Ok(expected));
        }
        let store = FileSessionStore::open(&path).unwrap();
        store.compact().unwrap();
        store.clear().unwrap();
        assert_eq!(state(&store), Ok(State::new()));
        let names = std::fs::read_dir(directory.path()).unwrap();
        assert_eq!(names.count(), 1, "one file");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{mode:o}");
        }
    }

    #[test]
    fn one_at_a_time_has_it_open() {
        let directory = directory();
        let path = directory.path().join("session");
        let store = FileSessionStore::open(&path).unwrap();
        assert_eq!(read(&path), Err(StoreErrorKind::Locked));
        drop(store);
        assert_eq!(read(&path), Ok(State::new()));
        // Making it is under the same lock.
        let other = directory.path().join("other");
        let making = open_file(&directory.path().join("other.new"), Existing::May).unwrap();
        let held = Backend::lock(making, FileStoreOptions::default()).unwrap();
        assert_eq!(read(&other), Err(StoreErrorKind::Locked));
        held.file.write(0, b"half a file").unwrap();
        drop(held);
        assert_eq!(
            read(&other),
            Ok(State::new()),
            "an interrupted attempt is begun anew"
        );
    }

    #[test]
    fn a_file_that_is_something_else_or_nothing_is_left_as_it_is() {
        let directory = directory();
        let path = directory.path().join("session");
        for (content, kind) in [
            (&b""[..], StoreErrorKind::Corrupt),
            (b"redb", StoreErrorKind::Corrupt),
            (b"a letter to a friend", StoreErrorKind::Foreign),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read(&path), Err(kind));
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
        std::fs::remove_file(&path).unwrap();
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let table = TableDefinition::<u8, u8>::new("something else");
        transaction.open_table(table).unwrap();
        transaction.commit().unwrap();
        drop(database);
        assert_eq!(read(&path), Err(StoreErrorKind::Foreign));
        assert_eq!(
            FileSessionStore::open(directory.path().join("no/such/place"))
                .unwrap_err()
                .kind(),
            StoreErrorKind::Io
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_and_what_was_there_stays() {
        let directory = directory();
        let path = directory.path().join("session");
        let options = FileStoreOptions {
            max_file_bytes: 8 * 1024 * 1024,
            ..FileStoreOptions::default()
        };
        let store = FileSessionStore::open_with(&path, options).unwrap();
        let group = |key: u8, len: usize| {
            [Change {
                key: Bytes::copy_from_slice(&[key]),
                value: Some(vec![key; len].into()),
            }]
        };
        let mut fitted = 0;
        let refused = loop {
            match store.write(&group(fitted, 100_000)) {
                Ok(()) => fitted += 1,
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(refused, StoreErrorKind::Full);
        assert!(fitted >= 10, "only {fitted} of 100 kB fit into 8 MiB");
        assert_eq!(state(&store).unwrap().len(), usize::from(fitted));
        assert!(std::fs::metadata(&path).unwrap().len() <= options.max_file_bytes);
        store.clear().unwrap();
        store.write(&group(0, 100_000)).unwrap();
        assert_eq!(state(&store).unwrap().len(), 1);
    }

    /// Damage of every kind: an error, or a state that was once stored. Never a panic, never something else.
    #[test]
    fn a_damaged_file_is_found_out() {
        let directory = directory();
        let path = directory.path().join("session");
        let states = states();
        let store = FileSessionStore::open(&path).unwrap();
        for group in groups() {
            store.write(&group).unwrap();
        }
        drop(store);
        let sound = std::fs::read(&path).unwrap();
        let mut errors = 0;
        let mut check = |bytes: &[u8], what: &str| {
            let damaged = directory.path().join("damaged");
            std::fs::write(&damaged, bytes).unwrap();
            match read(&damaged) {
                Ok(state) => assert!(states[1..].contains(&state), "{what}: {state:?}"),
                Err(
                    StoreErrorKind::Corrupt | StoreErrorKind::Foreign | StoreErrorKind::Version,
                ) => {
                    errors += 1;
                }
                Err(kind) => panic!("{what}: {kind:?}"),
            }
        };
        for len in (0..sound.len()).step_by(sound.len() / 40) {
            check(&sound[..len], &format!("cut to {len}"));
        }
        // Every byte of the header, and of the pages every so many.
        let offsets = (0..512)
            .step_by(3)
            .chain((512..sound.len()).step_by(sound.len() / 150));
        for at in offsets {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << (at % 8);
            check(&bytes, &format!("a bit of byte {at}"));
        }
        assert!(errors > 50, "{errors}");
    }

    /// A disk that remembers what it was told, in order.
    #[derive(Debug, Clone, Default)]
    struct Tape(Arc<Mutex<(Vec<u8>, Vec<Op>)>>);

    #[derive(Debug, Clone)]
    enum Op {
        SetLen(u64),
        Write(u64, Vec<u8>),
        Sync,
        /// Not the disk's: a group was reported as stored.
        Stored,
    }

    fn apply(image: &mut Vec<u8>, op: &Op) {
        match op {
            Op::SetLen(len) => image.resize(usize::try_from(*len).unwrap(), 0),
            Op::Write(offset, data) => {
                let offset = usize::try_from(*offset).unwrap();
                image[offset..offset + data.len()].copy_from_slice(data);
            }
            Op::Sync | Op::Stored => {}
        }
    }

    impl Tape {
        fn record(&self, op: Op) {
            let mut tape = self.0.lock().unwrap();
            apply(&mut tape.0, &op);
            tape.1.push(op);
        }
    }

    impl StorageBackend for Tape {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().0.len() as u64)
        }

        fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
            let offset = usize::try_from(offset).unwrap();
            Ok(self.0.lock().unwrap().0[offset..offset + len].to_vec())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.record(Op::SetLen(len));
            Ok(())
        }

        fn sync_data(&self, _: bool) -> io::Result<()> {
            self.record(Op::Sync);
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.record(Op::Write(offset, data.to_vec()));
            Ok(())
        }
    }

    /// The process dies after any write, or the power fails: then what was written since the last sync may be there or not.
    #[test]
    fn of_a_group_that_was_interrupted_all_is_seen_or_nothing() {
        let directory = directory();
        let path = directory.path().join("session");
        drop(FileSessionStore::open(&path).unwrap());
        let start = std::fs::read(&path).unwrap();

        let tape = Tape::default();
        tape.0.lock().unwrap().0.clone_from(&start);
        let database = redb::Builder::new()
            .create_with_backend(tape.clone())
            .unwrap();
        let store = FileSessionStore {
            path: path.clone(),
            options: FileStoreOptions::default(),
            database: Mutex::new(Some(database)),
        };
        for group in groups() {
            store.write(&group).unwrap();
            tape.record(Op::Stored);
        }
        let ops = tape.0.lock().unwrap().1.clone();
        let states = states();
        let mut random = 1_u64;
        let mut seen = vec![0; states.len()];
        for end in 0..=ops.len() {
            let stored = ops[..end]
                .iter()
                .filter(|op| matches!(op, Op::Stored))
                .count();
            let synced = ops[..end]
                .iter()
                .rposition(|op| matches!(op, Op::Sync))
                .unwrap_or(0);
            for power_fails in [false, true, true, true] {
                let mut image = start.clone();
                for (at, op) in ops[..end].iter().enumerate() {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let is_lost = power_fails && at > synced && random >> 63 == 1;
                    if !is_lost || matches!(op, Op::SetLen(_)) {
                        apply(&mut image, op);
                    }
                }
                std::fs::write(&path, &image).unwrap();
                let found = read(&path).unwrap_or_else(|kind| panic!("after {end}: {kind:?}"));
                let found = states.iter().position(|state| *state == found);
                let found = found.unwrap_or_else(|| panic!("after {end}: part of a group"));
                assert!(
                    found == stored || found == stored + 1,
                    "after {end}: {found} groups, {stored} were stored"
                );
                seen[found] += 1;
            }
        }
        assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
    }
}
