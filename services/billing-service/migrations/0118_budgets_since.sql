-- What was crossed at the end of a period is told after it, but only of what the budget was by then: so a budget knows since when its
-- limit and thresholds are as they are. By a trigger, so that a change by the version before counts as well.
alter table budgets add column limited_since timestamptz;

create function note_budget_limit() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' or (old.limit_micros, old.thresholds) is distinct from (new.limit_micros, new.thresholds) then
        new.limited_since := new.updated_at;
    else
        new.limited_since := coalesce(old.limited_since, old.updated_at);
    end if;
    return new;
end $$;
create trigger budgets_limited before insert or update on budgets for each row execute function note_budget_limit();

-- A budget that cannot be looked at is looked at again later: the others have their turn meanwhile.
alter table budgets add column next_at timestamptz;
grant update (next_at) on budgets to billing_app;
