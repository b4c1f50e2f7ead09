-- All of its rows are dead ones whenever it is vacuumed: giving its pages back each time would lock it, and all who post would wait.
alter table house_moves set (vacuum_truncate = off);
