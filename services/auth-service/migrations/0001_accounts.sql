-- People and the organizations they belong to. An email address is stored as it is compared (NFC, lower case), so that one
-- mailbox cannot be two accounts; passwords are Argon2id in PHC form, with a pepper that is not in this database.
create table users (
    id            uuid        primary key,
    email         text        not null constraint users_email_key unique,
    name          text        not null,
    password_hash text        not null,
    disabled_at   timestamptz,
    created_at    timestamptz not null
);

create table organizations (
    id         uuid        primary key,
    name       text        not null,
    created_at timestamptz not null
);

create table memberships (
    organization_id uuid not null references organizations (id),
    user_id         uuid not null references users (id),
    role            text not null check (role in ('owner', 'admin', 'member')),
    created_at      timestamptz not null,
    primary key (organization_id, user_id)
);
create index memberships_user_id on memberships (user_id);

grant select, insert, update on users, organizations to auth_app;
grant select, insert, update, delete on memberships to auth_app;
