//! FileDurableStore: durable entries in one plain file.
//!
//! ```text
//! file   "OTVR" | u16 version | batch | batch | ..            (little endian)
//! batch  u32 length of the body | u32 CRC-32 of the body | body
//! body   (u16 length of key | key | u32 length of value | value) ..
//! ```
//!
//! Batches are only appended, and each is on the disk before the next one is written. So a batch that is not
//! whole is the last one, nobody was told that it is stored, and it is cut off when the file is opened. One
//! that is not whole with another after it is damage, and is said.
//!
//! When most of the file is values that were replaced, it is written anew beside itself and renamed over the
//! old one. After a failed write or sync nobody knows what the disk holds: this store takes nothing more then,
//! and the node must be started again.
//!
//! Two nodes with the same entries would give the same numbers to different writes. So whoever opens the file holds
//! a lock on another one beside it, with `.lock` after its name, until its process ends or the store is dropped.

use crate::replicated::{DurableStore, StoreError, StoredEntry};
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const MAGIC: &[u8; 4] = b"OTVR";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 6;
const BATCH_HEADER_BYTES: usize = 8;
/// The largest body of a batch; larger batches are written as several.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Below this size a file is not worth being written anew.
const REWRITE_BYTES_MIN: u64 = 1 << 20;

/// Keeps durable entries in one file, which only one node can use at a time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FileDurableStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    open: Option<Contents>,
    /// Held as long as this lives, once the file was opened.
    lock: Option<File>,
    /// A write or sync has failed: nothing is written any more.
    failed: bool,
}

#[derive(Debug)]
struct Contents {
    file: File,
    bytes: u64,
    /// Where the newest value of each key is: its place and its length.
    places: BTreeMap<String, (u64, u32)>,
    /// About how large the file would be without replaced values.
    live_bytes: u64,
}

impl FileDurableStore {
    /// The store in the file at `path`, which is made when it is first needed; its folder must be there.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let inner = Inner {
            path: path.into(),
            open: None,
            lock: None,
            failed: false,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Does something with the file on a thread that may block.
    fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Inner) -> std::io::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let acted = tokio::task::spawn_blocking(move || {
                let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
                let path = inner.path.display().to_string();
                act(&mut inner).map_err(|error| StoreError::new(format!("{path}: {error}")))
            });
            acted
                .await
                .unwrap_or_else(|error| Err(StoreError::new(error)))
        })
    }
}

impl DurableStore for FileDurableStore {
    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredEntry>, StoreError>> {
        self.run(|inner| {
            let open = inner.open()?;
            let keys: Vec<String> = open.places.keys().cloned().collect();
            let rows = keys.into_iter().map(|key| {
                let bytes = open.value(&key)?;
                Ok(StoredEntry { key, bytes })
            });
            rows.collect()
        })
    }

    fn store(&self, batch: Vec<StoredEntry>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.run(move |inner| {
            inner.open()?;
            let stored = inner.store(&batch);
            inner.failed |= stored.is_err();
            stored
        })
    }
}

impl Inner {
    fn open(&mut self) -> std::io::Result<&mut Contents> {
        if self.failed {
            return Err(error("a write has failed before; start the node again"));
        }
        if self.lock.is_none() {
            self.lock = Some(lock(&self.path)?);
        }
        if self.open.is_none() {
            self.open = Some(Contents::open(&self.path)?);
        }
        self.open.as_mut().ok_or_else(|| error("it is not open"))
    }

    fn store(&mut self, batch: &[StoredEntry]) -> std::io::Result<()> {
        let path = self.path.clone();
        let open = self.open()?;
        open.append(batch)?;
        open.file.sync_data()?;
        if open.bytes > REWRITE_BYTES_MIN && open.bytes / 4 > open.live_bytes {
            *open = open.rewrite(&path)?;
        }
        Ok(())
    }
}

impl Contents {
    fn open(path: &Path) -> std::io::Result<Self> {
        let options = OpenOptions::new().read(true).write(true).open(path);
        let mut file = match options {
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => {
                return Self::create(path);
            }
            opened => opened?,
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        if bytes.len() < HEADER_BYTES && header().starts_with(&bytes) {
            // The node ended while it made the file.
            return Self::create(path);
        }
        if bytes.get(..HEADER_BYTES) != Some(&header()[..]) {
            return Err(error("no file of this store, or one of a newer program"));
        }
        let mut open = Self {
            file,
            bytes: HEADER_BYTES as u64,
            places: BTreeMap::new(),
            live_bytes: HEADER_BYTES as u64,
        };
        let mut at = HEADER_BYTES;
        while at < bytes.len() {
            let Some(body) = batch(&bytes, at) else {
                let next = claimed_end(&bytes, at);
                if next.is_some_and(|next| batch(&bytes, next).is_some()) {
                    return Err(error(format!("it is damaged at byte {at}")));
                }
                tracing::info!(path = %path.display(), at, "a batch that was not finished is cut off");
                open.file.set_len(at as u64)?;
                open.file.sync_all()?;
                break;
            };
            let begin = at + BATCH_HEADER_BYTES;
            open.note(body, begin as u64)
                .ok_or_else(|| error(format!("it is damaged at byte {at}")))?;
            at = begin + body.len();
        }
        open.bytes = at as u64;
        Ok(open)
    }

    fn create(path: &Path) -> std::io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(true);
        let mut file = options.open(path)?;
        file.write_all(&header())?;
        file.sync_all()?;
        sync_folder(path)?;
        Ok(Self {
            file,
            bytes: HEADER_BYTES as u64,
            places: BTreeMap::new(),
            live_bytes: HEADER_BYTES as u64,
        })
    }

    fn append(&mut self, rows: &[StoredEntry]) -> std::io::Result<()> {
        let mut body = Vec::new();
        for StoredEntry { key, bytes: value } in rows {
            let too_long = |_| error(format!("the entry `{key}` is too large"));
            let key_bytes = u16::try_from(key.len()).map_err(too_long)?;
            let value_bytes = u32::try_from(value.len()).map_err(too_long)?;
            if !body.is_empty() && body.len() + key.len() + value.len() > BODY_BYTES_MAX {
                self.append_body(&std::mem::take(&mut body))?;
                // Only the last batch may be unfinished.
                self.file.sync_data()?;
            }
            body.extend_from_slice(&key_bytes.to_le_bytes());
            body.extend_from_slice(key.as_bytes());
            body.extend_from_slice(&value_bytes.to_le_bytes());
            body.extend_from_slice(value);
        }
        if body.is_empty() {
            return Ok(());
        }
        self.append_body(&body)
    }

    fn append_body(&mut self, body: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(body.len()).map_err(|_| error("a batch is too large"))?;
        let mut bytes = Vec::with_capacity(BATCH_HEADER_BYTES + body.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
        bytes.extend_from_slice(body);
        self.file.seek(SeekFrom::Start(self.bytes))?;
        self.file.write_all(&bytes)?;
        let begin = self.bytes + BATCH_HEADER_BYTES as u64;
        self.bytes += bytes.len() as u64;
        self.note(body, begin)
            .ok_or_else(|| error("a batch was written wrongly"))
    }

    /// Remembers where the values of a batch are, whose body begins at `begin`; `None` if it is not one.
    fn note(&mut self, body: &[u8], begin: u64) -> Option<()> {
        let mut rest = body;
        while !rest.is_empty() {
            let key_bytes = u16::from_le_bytes(take(&mut rest, 2)?.try_into().ok()?);
            let key = std::str::from_utf8(take(&mut rest, key_bytes.into())?).ok()?;
            let value_bytes = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
            let place = begin + (body.len() - rest.len()) as u64;
            take(&mut rest, value_bytes as usize)?;
            let row = |value_bytes: u32| u64::from(key_bytes) + u64::from(value_bytes) + 16;
            let before = self.places.insert(key.to_owned(), (place, value_bytes));
            let replaced = before.map_or(0, |(_, bytes)| row(bytes));
            self.live_bytes = self.live_bytes + row(value_bytes) - replaced;
        }
        Some(())
    }

    fn value(&mut self, key: &str) -> std::io::Result<Vec<u8>> {
        let (place, bytes) = self.places.get(key).copied().unwrap_or_default();
        let mut value = vec![0; bytes as usize];
        self.file.seek(SeekFrom::Start(place))?;
        self.file.read_exact(&mut value)?;
        Ok(value)
    }

    /// Writes the newest values into a new file, which takes the place of this one.
    fn rewrite(&mut self, path: &Path) -> std::io::Result<Self> {
        let beside = path.with_extension("new");
        let mut new = Self::create(&beside)?;
        let keys: Vec<String> = self.places.keys().cloned().collect();
        for key in keys {
            let bytes = self.value(&key)?;
            new.append(&[StoredEntry { key, bytes }])?;
        }
        new.file.sync_all()?;
        std::fs::rename(&beside, path)?;
        sync_folder(path)?;
        Ok(new)
    }
}

/// Keeps others from the file at `path` until it is dropped.
fn lock(path: &Path) -> std::io::Result<File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(beside)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(error("another node uses it")),
        Err(TryLockError::Error(why)) => Err(why),
    }
}

fn header() -> [u8; HEADER_BYTES] {
    let [low, high] = VERSION.to_le_bytes();
    let [a, b, c, d] = *MAGIC;
    [a, b, c, d, low, high]
}

/// The body of the batch at `at`, if it is whole.
fn batch(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let mut rest = bytes.get(at..)?;
    let length = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
    let crc = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
    let body = take(&mut rest, length as usize)?;
    (length > 0 && crc32fast::hash(body) == crc).then_some(body)
}

/// Where the batch at `at` would end, by its own account.
fn claimed_end(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..at.checked_add(4)?)?;
    let length = u32::from_le_bytes(length.try_into().ok()?);
    at.checked_add(BATCH_HEADER_BYTES)?
        .checked_add(length as usize)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// A new name is only on the disk when its folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn error(what: impl Into<String>) -> std::io::Error {
    std::io::Error::other(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, value: &[u8]) -> StoredEntry {
        StoredEntry::new(key, value)
    }

    fn rows<const N: usize>(rows: [StoredEntry; N]) -> BTreeMap<String, Vec<u8>> {
        rows.into_iter().map(|row| (row.key, row.bytes)).collect()
    }

    async fn loaded(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        let rows = FileDurableStore::new(path).load().await?;
        Ok(rows.into_iter().map(|row| (row.key, row.bytes)).collect())
    }

    #[tokio::test]
    async fn what_is_stored_is_loaded_the_newest_of_each_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entries");
        assert!(loaded(&path).await.unwrap().is_empty());
        let store = FileDurableStore::new(&path);
        store
            .store(vec![row("a", b"1"), row("b", b"2")])
            .await
            .unwrap();
        store
            .store(vec![row("a", b"new"), row("empty", b"")])
            .await
            .unwrap();
        store.store(Vec::new()).await.unwrap();
        let expected = [row("a", b"new"), row("b", b"2"), row("empty", b"")];
        assert_eq!(store.load().await.unwrap(), expected, "by the same handle");
        drop(store);
        assert_eq!(loaded(&path).await.unwrap(), rows(expected));
        let missing = FileDurableStore::new(folder.path().join("no/folder"));
        assert!(missing.load().await.is_err());
    }

    /// What version 1 has written is read for good.
    #[tokio::test]
    async fn golden_bytes_of_format_1() {
        let golden = b"OTVR\x01\x00\x08\x00\x00\x00\x82*\x9e\x06\x01\x00a\x01\x00\x00\x001";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entries");
        let store = FileDurableStore::new(&path);
        store.store(vec![row("a", b"1")]).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), golden);
    }

    /// A power cut at any byte of the last batch loses that batch only, and what follows is stored.
    #[tokio::test]
    async fn a_torn_tail_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entries");
        let store = FileDurableStore::new(&path);
        store
            .store(vec![row("a", b"old"), row("b", b"2")])
            .await
            .unwrap();
        let whole = std::fs::metadata(&path).unwrap().len() as usize;
        store
            .store(vec![row("a", b"new"), row("c", b"3")])
            .await
            .unwrap();
        drop(store);
        let bytes = std::fs::read(&path).unwrap();
        for end in whole..bytes.len() {
            std::fs::write(&path, &bytes[..end]).unwrap();
            let expected = rows([row("a", b"old"), row("b", b"2")]);
            assert_eq!(loaded(&path).await.unwrap(), expected, "at {end}");
            let store = FileDurableStore::new(&path);
            store.store(vec![row("d", b"4")]).await.unwrap();
            drop(store);
            assert_eq!(loaded(&path).await.unwrap().len(), 3, "at {end}");
        }
        // Or the file is as long as it should be, but not all of it was written.
        let mut zeros = bytes.clone();
        zeros[whole + 10..].fill(0);
        std::fs::write(&path, zeros).unwrap();
        assert_eq!(loaded(&path).await.unwrap().len(), 2);
        for end in 0..HEADER_BYTES {
            std::fs::write(&path, &bytes[..end]).unwrap();
            assert!(loaded(&path).await.unwrap().is_empty(), "at {end}");
        }
    }

    #[tokio::test]
    async fn damage_and_other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entries");
        let store = FileDurableStore::new(&path);
        store.store(vec![row("a", b"1")]).await.unwrap();
        store.store(vec![row("b", b"2")]).await.unwrap();
        drop(store);
        let bytes = std::fs::read(&path).unwrap();
        let mut damaged = bytes.clone();
        damaged[HEADER_BYTES + BATCH_HEADER_BYTES + 2] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let refused = loaded(&path).await.unwrap_err();
        assert!(
            refused.to_string().contains("damaged at byte 6"),
            "{refused}"
        );
        let mut newer = bytes;
        newer[4] = 2;
        for other in [newer, b"something else".to_vec()] {
            std::fs::write(&path, &other).unwrap();
            assert!(loaded(&path).await.is_err());
            assert_eq!(std::fs::read(&path).unwrap(), other, "it is left alone");
        }
    }

    /// A file of replaced values is written anew, and holds the newest ones then too.
    #[tokio::test]
    async fn replaced_values_do_not_fill_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entries");
        let store = FileDurableStore::new(&path);
        for round in 0..40u8 {
            let batch = (0..4).map(|key| row(&format!("k{key}"), &vec![round; 20_000]));
            store.store(batch.collect()).await.unwrap();
        }
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert!(bytes < 2 * REWRITE_BYTES_MIN, "{bytes}");
        drop(store);
        let rows = loaded(&path).await.unwrap();
        assert_eq!(rows.len(), 4);
        assert!(rows.values().all(|value| *value == vec![39; 20_000]));
    }

    /// Of two nodes with one file the second does not start, until the first is gone.
    #[tokio::test]
    async fn a_file_has_one_node() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entries");
        let store = FileDurableStore::new(&path);
        store.store(vec![row("a", b"1")]).await.unwrap();
        let second = FileDurableStore::new(&path);
        let refused = second.load().await.unwrap_err();
        assert!(refused.to_string().contains("another node"), "{refused}");
        assert!(second.store(vec![row("a", b"2")]).await.is_err());
        store.store(vec![row("a", b"3")]).await.unwrap();
        drop(store);
        assert_eq!(second.load().await.unwrap(), [row("a", b"3")]);
    }

    /// A full disk: nothing is taken any more, so nothing is confirmed that is not there.
    #[tokio::test]
    async fn after_a_failed_write_nothing_is_taken() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entries");
        let store = FileDurableStore::new(&path);
        store.store(vec![row("a", b"1")]).await.unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(full)
            .unwrap();
        store.inner.lock().unwrap().open.as_mut().unwrap().file = file;
        assert!(store.store(vec![row("b", b"2")]).await.is_err());
        let again = store.store(vec![row("b", b"2")]).await.unwrap_err();
        assert!(
            again.to_string().contains("start the node again"),
            "{again}"
        );
        drop(store);
        assert_eq!(loaded(&path).await.unwrap(), rows([row("a", b"1")]));
    }
}
