-- Finds documents by their terms; these are ASCII, so that this tokenizer leaves them as they are.
CREATE VIRTUAL TABLE search_index USING fts5(
    terms, content='search_documents', content_rowid='event_nid', detail='none', columnsize=0, tokenize='ascii'
);
CREATE TRIGGER search_documents_added AFTER INSERT ON search_documents BEGIN
    INSERT INTO search_index (rowid, terms) VALUES (new.event_nid, new.terms);
END;
CREATE TRIGGER search_documents_removed AFTER DELETE ON search_documents BEGIN
    INSERT INTO search_index (search_index, rowid, terms) VALUES ('delete', old.event_nid, old.terms);
END;
