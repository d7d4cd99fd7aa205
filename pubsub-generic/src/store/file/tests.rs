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
            Err(StoreErrorKind::Corrupt | StoreErrorKind::Foreign | StoreErrorKind::Version) => {
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
