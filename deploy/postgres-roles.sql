-- Three roles for the ledger's database, which holds nothing else. Run it as a superuser connected to
-- that database, and again after the first `clipfarm migrate`; it may be run as often as one likes.
--
--   psql -d clipfarm -v ON_ERROR_STOP=1 -f deploy/postgres-roles.sql
--
-- Then give each a password: \password clipfarm_owner, and so on. None is written down here.
--
--   clipfarm_owner   makes and changes tables: first opening of the ledger, and `clipfarm migrate`
--   clipfarm_worker  reads and writes rows: CLIPFARM_LEDGER of webserver, daemon and runs
--   clipfarm_reader  reads rows: dashboards, people who look

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['clipfarm_owner', 'clipfarm_worker', 'clipfarm_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        END IF;
    END LOOP;
END
$$;

-- Before PostgreSQL 15 everyone may create tables in the schema "public".
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO clipfarm_owner;
GRANT USAGE ON SCHEMA public TO clipfarm_worker, clipfarm_reader;

-- Temporary tables are a way to fill the disk; the ledger needs none.
DO $$
BEGIN
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END
$$;

-- Tables that are there, and those that a migration will make. No TRUNCATE: a ledger is never emptied.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clipfarm_worker;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO clipfarm_reader;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO clipfarm_worker;
ALTER DEFAULT PRIVILEGES FOR ROLE clipfarm_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO clipfarm_worker;
ALTER DEFAULT PRIVILEGES FOR ROLE clipfarm_owner IN SCHEMA public
    GRANT SELECT ON TABLES TO clipfarm_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE clipfarm_owner IN SCHEMA public
    GRANT USAGE ON SEQUENCES TO clipfarm_worker;

-- Which schema the tables have is the owner's to say. The table is made by the first migration: run this file
-- again after it.
DO $$
BEGIN
    IF to_regclass('public.clipfarm_schema_version') IS NOT NULL THEN
        REVOKE INSERT, UPDATE, DELETE ON public.clipfarm_schema_version FROM clipfarm_worker;
    END IF;
END
$$;
