create table customers(id integer primary key, name text, city text);
create table orders(id integer primary key, customer integer, amount real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)
  insert into customers select i, 'customer ' || i, 'city ' || (i % 37) from n;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000)
  insert into orders select i, 1 + i * 7919 % 1000, (i * 31 % 9973) / 100.0 from n;
create index orders_by_customer on orders(customer);
select city, count(*), round(sum(amount), 2) from orders join customers on customers.id = orders.customer group by city order by 3 desc limit 3;
select count(*) from orders o join customers c on c.id = o.customer where c.city = 'city 7';
pragma integrity_check;
