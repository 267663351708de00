-- Finds documents by their terms.
CREATE INDEX search_documents_by_term ON search_documents USING gin (string_to_array(terms, ' '));
