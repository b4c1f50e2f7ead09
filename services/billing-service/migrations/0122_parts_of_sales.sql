-- What of a sale went back when so much of all that was received for it did, tax on top included: the same part, in whole micro-units. As in
-- src/sales/reversals.rs, which books it; here it is compared.
create function part_of_sale(net numeric, gone numeric, received numeric) returns numeric language sql immutable parallel safe
return case when received > net then div(net * least(gone, received) + div(received, 2), received) else least(gone, net) end;
grant execute on function part_of_sale to billing_app;
