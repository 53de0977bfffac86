// Keeps a finished page in IndexedDB until the server has stored it, so that a crash of either side loses nothing.

function store(mode, act) {
  return new Promise((resolve) => {
    const opening = indexedDB.open("luab-annotate", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("pages");
    opening.onerror = () => resolve(null); // a private window may have no database; the page is still in memory
    opening.onsuccess = () => {
      const transaction = opening.result.transaction("pages", mode);
      const asked = act(transaction.objectStore("pages"));
      const end = (value) => { opening.result.close(); resolve(value); };
      transaction.oncomplete = () => end(asked.result ?? null);
      transaction.onerror = transaction.onabort = () => end(null);
    };
  });
}

export const keep = (url, body) => store("readwrite", (pages) => pages.put(body, url));
export const kept = (url) => store("readonly", (pages) => pages.get(url));
export const drop = (url) => store("readwrite", (pages) => pages.delete(url));
export const dropAll = () => store("readwrite", (pages) => pages.clear());
