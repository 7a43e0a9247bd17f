package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Tools that alter tables online work on a copy and put that in the table's place. The capture follows, with names in the log or without,
// while others write (hard case 41). The statements are those that the tools issue.
func TestOnlineSchemaChanges(t *testing.T) {
	t.Parallel()
	for name, tool := range map[string]func(*onlineChange){"gh-ost": (*onlineChange).ghost, "pt-online-schema-change": (*onlineChange).percona} {
		for _, names := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, names in the log %v", name, names), func(t *testing.T) {
				t.Parallel()
				flavors(t, func(t *testing.T, flavor string) {
					open := newDatabase
					if !names {
						open = plainDatabase
					}
					db := open(t, flavor)
					db.exec("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 10), (2, 20), (3, 30), (4, 40)")
					c := newCapture(t, db)
					require.NoError(t, c.run("s t 1 v=10", "s t 2 v=20", "s t 3 v=30", "s t 4 v=40"))
					all := c.docs
					change := &onlineChange{t: t, db: db}
					var wg sync.WaitGroup
					wg.Go(func() { tool(change) })
					// What nobody but the tool did is read again; what others do goes on.
					require.NoError(t, c.run("u t 1 v=11", "d t 2 v=20", "c t 5 v=50", "s t 4 v=77", "u t 3 v=33", "c t 6 v=60", "d t 5 v=50"))
					wg.Wait()
					all = append(all, c.docs...)
					last := map[string]string{}
					for _, doc := range all {
						last[strings.Fields(doc)[2]] = doc[strings.LastIndex(doc, " ")+1:]
						if doc[0] == 'd' {
							delete(last, strings.Fields(doc)[2])
						}
					}
					require.Equal(t, map[string]string{"1": "v=11", "3": "v=33", "4": "v=77", "6": "v=60"}, last, all)
					db.exec("INSERT INTO t VALUES (NULL, 7, 70)")
					require.NoError(t, c.run("c t 7 v=70"))
				})
			})
		}
	}
}

// onlineChange moves the columns of t(id, v) while others write.
type onlineChange struct {
	t  testing.TB
	db *database
}

// before are writes of others while the tool copies.
func (o *onlineChange) before() {
	o.db.exec("UPDATE t SET v = 11 WHERE id = 1", "DELETE FROM t WHERE id = 2", "INSERT INTO t (id, v) VALUES (5, 50)")
}

// after are writes of others once the copy is in place.
func (o *onlineChange) after() {
	o.db.exec("UPDATE t SET v = 33 WHERE id = 3", "INSERT INTO t (id, v) VALUES (6, 60)", "DELETE FROM t WHERE id = 5")
}

func (o *onlineChange) ghost() {
	o.db.exec("create /* gh-ost */ table `_t_ghc` (id bigint unsigned auto_increment, hint varchar(64) charset ascii not null, value varchar(4096) charset ascii not null, primary key(id)) auto_increment=256",
		"create /* gh-ost */ table `_t_gho` like `t`", "alter /* gh-ost */ table `_t_gho` add column n INT first",
		"insert /* gh-ost */ ignore into `_t_gho` (`id`, `v`) (select `id`, `v` from `t` force index (`PRIMARY`) where (((`id` > 0))) lock in share mode)")
	o.before()
	// gh-ost reads the log and applies what others did.
	o.db.exec("replace /* gh-ost */ into `_t_gho` (`id`, `v`) values (1, 11)", "delete /* gh-ost */ from `_t_gho` where ((`id` = 2))", "replace /* gh-ost */ into `_t_gho` (`id`, `v`) values (5, 50)",
		"update `_t_gho` set v = 77 where id = 4", "create /* gh-ost */ table `_t_del` (id int auto_increment primary key) comment='ghost-cut-over-sentry'")
	locker, renamer := o.db.session(o.db.name), o.db.session(o.db.name)
	run := func(s *session, sql string) { require.NoError(o.t, s.exec(o.t.Context(), sql), sql) }
	run(locker, "lock /* gh-ost */ tables `t` write, `_t_del` write")
	var wg sync.WaitGroup
	wg.Go(func() {
		run(renamer, "rename /* gh-ost */ table `t` to `_t_del`, `_t_gho` to `t`") // waits for the lock
	})
	run(locker, "drop /* gh-ost */ table if exists `_t_del`")
	run(locker, "unlock tables")
	wg.Wait()
	o.after()
	o.db.exec("drop /* gh-ost */ table if exists `_t_ghc`", "drop /* gh-ost */ table if exists `_t_del`")
}

func (o *onlineChange) percona() {
	o.db.exec("CREATE TABLE `_t_new` (id INT PRIMARY KEY, v INT)", "ALTER TABLE `_t_new` ADD COLUMN n INT FIRST",
		"CREATE TRIGGER `pt_osc_t_del` AFTER DELETE ON `t` FOR EACH ROW BEGIN DECLARE CONTINUE HANDLER FOR 1146 begin end; DELETE IGNORE FROM `_t_new` WHERE `_t_new`.`id` <=> OLD.`id`; END",
		"CREATE TRIGGER `pt_osc_t_upd` AFTER UPDATE ON `t` FOR EACH ROW BEGIN DELETE IGNORE FROM `_t_new` WHERE !(OLD.`id` <=> NEW.`id`) AND `_t_new`.`id` <=> OLD.`id`; REPLACE INTO `_t_new` (`id`, `v`) VALUES (NEW.`id`, NEW.`v`); END",
		"CREATE TRIGGER `pt_osc_t_ins` AFTER INSERT ON `t` FOR EACH ROW BEGIN REPLACE INTO `_t_new` (`id`, `v`) VALUES (NEW.`id`, NEW.`v`); END",
		"INSERT LOW_PRIORITY IGNORE INTO `_t_new` (`id`, `v`) SELECT `id`, `v` FROM `t` LOCK IN SHARE MODE /*pt-online-schema-change 1 copy table*/")
	o.before()
	o.db.exec("UPDATE `_t_new` SET v = 77 WHERE id = 4", "ANALYZE TABLE `_t_new` /* pt-online-schema-change */",
		"RENAME TABLE `t` TO `_t_old`, `_t_new` TO `t`")
	o.after()
	o.db.exec("DROP TABLE IF EXISTS `_t_old`", "DROP TRIGGER IF EXISTS `pt_osc_t_del`", "DROP TRIGGER IF EXISTS `pt_osc_t_upd`", "DROP TRIGGER IF EXISTS `pt_osc_t_ins`")
}
