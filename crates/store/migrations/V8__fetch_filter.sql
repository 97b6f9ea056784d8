-- Which messages an organisation wants fetched; none: all.
ALTER TABLE organisations ADD COLUMN fetch_filter jsonb;
