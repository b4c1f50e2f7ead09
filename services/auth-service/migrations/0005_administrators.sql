-- Who runs the installation. The first is made with the one-time token of `admin bootstrap`; there is no default one.
alter table users add column administrator boolean not null default false;
